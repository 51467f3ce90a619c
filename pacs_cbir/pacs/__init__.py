"""The service as SCU: what it says to a PACS."""
