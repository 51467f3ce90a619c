"""DIMSE, with this service as the SCP."""
