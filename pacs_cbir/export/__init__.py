"""Research sets from the site's own studies, without their patients' identities."""
