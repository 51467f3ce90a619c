"""Door 1: DIMSE, with this service as the SCP."""
