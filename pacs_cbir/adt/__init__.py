"""HL7 ADT over MLLP, what a hospital's interface engine says of patients. The only room that knows hl7."""
