"""DICOM knowledge: headers, sequences, volumes. No database, no torch."""
