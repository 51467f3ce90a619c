"""Which level of the query model an attribute belongs to (PS3.4 C.6.2), by keyword; all others are the instance's."""

_PATIENT = """
    PatientName PatientID IssuerOfPatientID TypeOfPatientID PatientBirthDate PatientBirthTime
    PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar PatientSex
    QualityControlSubject StrainDescription StrainNomenclature StrainAdditionalInformation OtherPatientIDs
    OtherPatientNames PatientBirthName PatientMotherBirthName EthnicGroup PatientComments
    PatientSpeciesDescription PatientBreedDescription ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization
    PatientIdentityRemoved DeidentificationMethod PatientAddress PatientTelephoneNumbers CountryOfResidence
    RegionOfResidence PatientReligiousPreference MilitaryRank BranchOfService
    ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName IssuerOfClinicalTrialProtocolID
    ClinicalTrialSiteID ClinicalTrialSiteName IssuerOfClinicalTrialSiteID ClinicalTrialSubjectID
    IssuerOfClinicalTrialSubjectID ClinicalTrialSubjectReadingID IssuerOfClinicalTrialSubjectReadingID
    ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialProtocolEthicsCommitteeApprovalNumber
"""
"""PS3.3 C.7.1.1, C.7.1.3."""

_STUDY = """
    StudyInstanceUID StudyDate StudyTime AccessionNumber StudyID StudyDescription ReferringPhysicianName
    ConsultingPhysicianName PhysiciansOfRecord NameOfPhysiciansReadingStudy RequestingService RequestingPhysician
    RequestedProcedureDescription StudyComments
    AdmittingDiagnosesDescription PatientAge PatientSize PatientWeight PatientBodyMassIndex MeasuredAPDimension
    MeasuredLateralDimension MedicalAlerts Allergies Occupation SmokingStatus AdditionalPatientHistory PregnancyStatus
    LastMenstrualDate PatientSexNeutered PatientState ReasonForVisit AdmissionID IssuerOfAdmissionID AdmittingDate
    AdmittingTime ServiceEpisodeID ServiceEpisodeDescription IssuerOfServiceEpisodeID SpecialNeeds VisitStatusID
    VisitComments CurrentPatientLocation PatientInstitutionResidence
    ClinicalTrialTimePointID ClinicalTrialTimePointDescription IssuerOfClinicalTrialTimePointID
    LongitudinalTemporalOffsetFromEvent LongitudinalTemporalEventType
"""
"""PS3.3 C.7.2.1, C.7.2.2, C.7.2.3, and the visit's identification (PS3.3 C.3)."""

_SERIES = """
    SeriesInstanceUID SeriesNumber Modality SeriesDate SeriesTime SeriesDescription PerformingPhysicianName
    OperatorsName AnatomicalOrientationType BodyPartExamined ProtocolName PatientPosition Laterality
    PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedProcedureStepEndDate
    PerformedProcedureStepEndTime PerformedProcedureStepID PerformedProcedureStepDescription
    CommentsOnThePerformedProcedureStep TreatmentSessionUID ClinicalTrialCoordinatingCenterName ClinicalTrialSeriesID
    ClinicalTrialSeriesDescription IssuerOfClinicalTrialSeriesID
    Manufacturer ManufacturerModelName InstitutionName InstitutionAddress InstitutionalDepartmentName StationName
    DeviceSerialNumber DeviceUID GantryID SoftwareVersions DateOfLastCalibration TimeOfLastCalibration
    DateOfManufacture DateOfInstallation ManufacturerDeviceClassUID
    FrameOfReferenceUID PositionReferenceIndicator
"""
"""PS3.3 C.7.3.1, C.7.3.2, C.7.5.1, C.7.4.1."""

_ACQUISITION = """
    ScanningSequence SequenceVariant ScanOptions MRAcquisitionType SequenceName PulseSequenceName AngioFlag
    RepetitionTime EchoTime InversionTime FlipAngle VariableFlipAngleFlag EchoTrainLength EchoPulseSequence
    EchoPlanarPulseSequence SteadyStatePulseSequence AcquisitionContrast NumberOfAverages ImagingFrequency
    ImagedNucleus ResonantNucleus MagneticFieldStrength NumberOfPhaseEncodingSteps PercentSampling
    PercentPhaseFieldOfView PixelBandwidth ReceiveCoilName TransmitCoilName AcquisitionMatrix
    InPlanePhaseEncodingDirection NumberOfTemporalPositions TemporalResolution SliceThickness SpacingBetweenSlices
    ContrastBolusAgent ContrastBolusRoute ContrastBolusVolume ContrastBolusStartTime ContrastBolusStopTime
    ContrastBolusTotalDose ContrastFlowRate ContrastFlowDuration ContrastBolusIngredient
    ContrastBolusIngredientConcentration
"""
"""How the series was acquired: PS3.3 C.8.3.1, C.8.13.4, C.7.6.4. Values that vary within a series are its first's."""

PATIENT_KEYWORDS = frozenset(_PATIENT.split())
PATIENT_STUDY_KEYWORDS = frozenset((_PATIENT + _STUDY).split())
SERIES_KEYWORDS = frozenset((_SERIES + _ACQUISITION).split())
