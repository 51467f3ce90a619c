"""Sources of data → the rows of a manifest; a module a source, each with what it left out and why."""
