"""Sequences, body parts and reasons, from headers as scanners write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    EnhancedMRImageStorage,
    MRImageStorage,
    MRSpectroscopyStorage,
    SecondaryCaptureImageStorage,
)

from pacs_cbir.dicom.body_part import body_part
from pacs_cbir.dicom.sequence import classify_header, classify_sequence, not_embeddable
from pacs_cbir.dicom.sequence_header import Sequence
from tests.unit.dicom.vendor_headers import HEADERS, SOURCES

REAL = Path(__file__).parents[4] / "shared" / "data" / "dicom"


def header(**attributes: object) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = MRImageStorage
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


SPIN = {"ScanningSequence": "SE"}
T1_SPIN = {**SPIN, "RepetitionTime": 550, "EchoTime": 9}
T2_SPIN = {**SPIN, "RepetitionTime": 4500, "EchoTime": 100}
FLAIR_SPIN = {"ScanningSequence": ["SE", "IR"], "RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500}
MPRAGE = {
    "ScanningSequence": ["GR", "IR"],
    "SequenceVariant": ["SP", "MP"],
    "RepetitionTime": 2250,
    "EchoTime": 4,
    "InversionTime": 850,
    "FlipAngle": 9,
}
SPGR = {"ScanningSequence": "GR", "SequenceVariant": "SP", "RepetitionTime": 8, "EchoTime": 3, "FlipAngle": 12}
LONG_GRADIENT = {"ScanningSequence": "GR", "RepetitionTime": 600, "EchoTime": 20, "FlipAngle": 20}
PLANAR = {"ScanningSequence": "EP", "RepetitionTime": 5000, "EchoTime": 80}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        # What was played out, without a word.
        (T1_SPIN, Sequence.T1),
        (T2_SPIN, Sequence.T2),
        (FLAIR_SPIN, Sequence.FLAIR),
        ({**SPIN, "RepetitionTime": 2300, "EchoTime": 22}, Sequence.PD),
        ({"ScanningSequence": "IR", "RepetitionTime": 2000, "EchoTime": 12, "InversionTime": 800}, Sequence.T1),
        ({"ScanningSequence": "RM", "RepetitionTime": 3500, "EchoTime": 400}, Sequence.T2),
        (MPRAGE, Sequence.T1),
        (SPGR, Sequence.T1),
        (LONG_GRADIENT, Sequence.T2STAR),
        ({**PLANAR, "DiffusionBValue": 1000.0}, Sequence.DWI),
        ({**PLANAR, "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]}, Sequence.DWI),
        ({**PLANAR, "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"]}, Sequence.ADC),
        ({**T1_SPIN, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Sequence.LOCALISER),
        # What enhanced instances say outright.
        ({"AcquisitionContrast": "FLUID_ATTENUATED"}, Sequence.FLAIR),
        ({"AcquisitionContrast": "T2_STAR"}, Sequence.T2STAR),
        ({"EchoPulseSequence": "SPIN", "RepetitionTime": 500, "EchoTime": 10}, Sequence.T1),
        ({"EchoPulseSequence": "GRADIENT", "InversionRecovery": "YES", "RepetitionTime": 1800, "EchoTime": 2.4},
         Sequence.T1),
        # Contrast medium.
        ({**T1_SPIN, "ContrastBolusAgent": "Dotarem 15 ml"}, Sequence.T1CE),
        ({**T1_SPIN, "ContrastBolusAgent": "NONE"}, Sequence.T1),
        ({**T1_SPIN, "SeriesDescription": "AX T1 POST"}, Sequence.T1CE),
        ({**T1_SPIN, "SeriesDescription": "t1_se_tra+KM"}, Sequence.T1CE),
        ({**MPRAGE, "SeriesDescription": "T1W_3D_TFE GADO"}, Sequence.T1CE),
        ({**T1_SPIN, "SeriesDescription": "t1 tra pre contrast"}, Sequence.T1),
        ({**T1_SPIN, "SeriesDescription": "t1 tra nativ"}, Sequence.T1),
        ({**T1_SPIN, "SeriesDescription": "SAG T1 SANS GADO"}, Sequence.T1),
        ({**FLAIR_SPIN, "ContrastBolusAgent": "Gadovist"}, Sequence.FLAIR),
        # Words alone.
        ({"SeriesDescription": "Ax T2-FLAIR"}, Sequence.FLAIR),
        ({"SeriesDescription": "t2_tirm_tra_dark-fluid"}, Sequence.FLAIR),
        ({"SeriesDescription": "sT1W_3D_TFE"}, Sequence.T1),
        ({"SeriesDescription": "Sag FSPGR BRAVO"}, Sequence.T1),
        ({"SeriesDescription": "AX T2 FSE"}, Sequence.T2),
        ({"SeriesDescription": "T2W_TSE"}, Sequence.T2),
        ({"SeriesDescription": "t2_fl2d_tra_hemo"}, Sequence.T2STAR),
        ({"SeriesDescription": "AX T2* GRE"}, Sequence.T2STAR),
        ({"SeriesDescription": "SWI_Images"}, Sequence.T2STAR),
        ({"SeriesDescription": "ep2d_diff_3scan_trace"}, Sequence.DWI),
        ({"SeriesDescription": "Apparent Diffusion Coefficient (mm2/s)", "ImageType": ["DERIVED", "SECONDARY"]},
         Sequence.ADC),
        ({"SeriesDescription": "FSE PD AXIAL"}, Sequence.PD),
        ({"SeriesDescription": "3-Plane Loc"}, Sequence.LOCALISER),
        ({"SeriesDescription": "Repérage"}, Sequence.LOCALISER),
        ({"SeriesDescription": "AAHead_Scout"}, Sequence.LOCALISER),
        ({"SeriesDescription": "localizer", **T1_SPIN}, Sequence.LOCALISER),
        # One of the words fits what was played out.
        ({**SPIN, "RepetitionTime": 2500, "EchoTime": 20, "SeriesDescription": "PD/T2 dual echo"}, Sequence.PD),
        ({**T2_SPIN, "SeriesDescription": "T2 FLAIR"}, Sequence.FLAIR),
        # Neither fits any, or they disagree.
        ({}, Sequence.UNKNOWN),
        ({"SeriesDescription": "part1 of test2"}, Sequence.UNKNOWN),
        ({**T1_SPIN, "SeriesDescription": "AX T2 TSE"}, Sequence.UNKNOWN),
        ({**T1_SPIN, "ContrastBolusAgent": "Dotarem", "SeriesDescription": "T1 pre"}, Sequence.UNKNOWN),
        ({"SeriesDescription": "PD T2"}, Sequence.UNKNOWN),
        ({**SPGR, "SeriesDescription": "3D TOF MRA"}, Sequence.UNKNOWN),
        ({**SPGR, "AngioFlag": "Y"}, Sequence.UNKNOWN),
        ({**MPRAGE, "ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, Sequence.UNKNOWN),
        ({**LONG_GRADIENT, "SeriesDescription": "ep2d_perf"}, Sequence.UNKNOWN),
        ({**SPIN, "RepetitionTime": 4500}, Sequence.UNKNOWN),
    ],
)  # fmt: skip
def test_sequences(attributes: dict[str, object], expected: Sequence) -> None:
    found = classify_sequence(header(**attributes))
    assert (found.sequence, bool(found.evidence["rule"])) == (expected, True), found.evidence


@pytest.mark.parametrize(("source", "description", "attributes", "expected"), HEADERS)
def test_vendors_headers(source: str, description: str, attributes: dict[str, object], expected: str) -> None:
    assert source in SOURCES
    found = classify_sequence(header(SeriesDescription=description, **attributes))
    assert found.sequence.value == expected, found.evidence


@pytest.mark.parametrize(("source", "description", "attributes", "expected"), HEADERS)
def test_what_is_kept_tells_the_same_again(
    source: str, description: str, attributes: dict[str, object], expected: str
) -> None:
    found = classify_sequence(header(SeriesDescription=description, **attributes))
    assert classify_header(found.evidence) == found


def test_the_evidence_names_what_was_looked_at() -> None:
    found = classify_sequence(header(**T1_SPIN, SeriesDescription="AX T2 TSE", PatientName="Doe^Jane"))
    assert found.evidence["SeriesDescription"] == "AX T2 TSE"
    assert found.evidence["EchoTime"] == "9.0"
    assert "conflict" in found.evidence["rule"]
    assert "Doe" not in str(found.evidence)


def test_functional_groups_are_looked_into() -> None:
    timing, echo, modifier = Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, echo.EffectiveEchoTime, modifier.InversionTimes = 9000.0, 120.0, 2500.0
    modifier.InversionRecovery = "YES"
    shared, own = Dataset(), Dataset()
    shared.MRTimingAndRelatedParametersSequence = [timing]
    shared.MRModifierSequence = [modifier]
    own.MREchoSequence = [echo]
    ds = header(SOPClassUID=EnhancedMRImageStorage, EchoPulseSequence="SPIN")
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [own]
    assert classify_sequence(ds).sequence is Sequence.FLAIR


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"BodyPartExamined": "BRAIN"}, "BRAIN"),
        ({"BodyPartExamined": "HEAD"}, "BRAIN"),
        ({"BodyPartExamined": "Schädel "}, "BRAIN"),
        ({"BodyPartExamined": "KNEE", "StudyDescription": "MR brain"}, "KNEE"),
        ({"BodyPartExamined": "LSPINE"}, "SPINE"),
        ({"BodyPartExamined": "UPPER JAW"}, "UPPERJAW"),
        ({"StudyDescription": "IRM Crâne sans injection"}, "BRAIN"),
        ({"StudyDescription": "RM CEREBRALE"}, "BRAIN"),
        ({"ProtocolName": "kopf_tumor"}, "BRAIN"),
        ({"SeriesDescription": "t1_tse_sag_Knie_re"}, "KNEE"),
        ({"ProtocolName": "t1sagknee"}, "KNEE"),
        ({"ReceiveCoilName": "HEAD"}, "BRAIN"),
        ({"StudyDescription": "MR Brain and neck"}, ""),
        ({"StudyDescription": "Research"}, ""),
        ({}, ""),
    ],
)
def test_body_parts(attributes: dict[str, object], expected: str) -> None:
    assert body_part(header(**attributes)) == expected


def test_the_coded_region_counts() -> None:
    code = Dataset()
    code.CodeMeaning = "Brain"
    assert body_part(header(AnatomicRegionSequence=[code], StudyDescription="Knie")) == "BRAIN"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (T1_SPIN, None),
        ({**T1_SPIN, "ImageType": ["DERIVED", "SECONDARY"]}, None),
        ({**T1_SPIN, "ImageType": ["ORIGINAL", "PRIMARY", "MPR"]}, None),
        ({**PLANAR, "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]}, None),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "derived map ADC"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "FA"]}, "derived map FA"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "derived image MPR"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "derived image MIP"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "SCREEN SAVE"),
        ({"SeriesDescription": "localizer"}, "localiser"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "not embedded: Secondary Capture Image Storage"),
        ({"SOPClassUID": MRSpectroscopyStorage}, "not embedded: MR Spectroscopy Storage"),
    ],
)
def test_what_is_not_embedded_says_why(attributes: dict[str, object], reason: str | None) -> None:
    ds = header(**attributes)
    found = not_embeddable(ds.SOPClassUID, classify_sequence(ds))
    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.skipif(not REAL.is_dir(), reason="the real series are not here")
@pytest.mark.parametrize(
    ("folder", "sequence", "part"),
    [
        ("transfer-syntaxes", Sequence.T2STAR, ""),
        ("siemens-enhanced-t1", Sequence.T1, "BRAIN"),
        ("enhanced-fo-dicom", Sequence.T1, "KNEE"),
        ("ge-pd-big-endian", Sequence.PD, "BRAIN"),
        ("siemens-mprage-study/t1_MPRAGEcr_noGRAPPA_19", Sequence.T1, "BRAIN"),
        ("siemens-mprage-study/gre_field_mapping_2", Sequence.UNKNOWN, ""),
        ("siemens-mprage-study/gre_field_mapping_3", Sequence.UNKNOWN, ""),
    ],
)
def test_real_headers(folder: str, sequence: Sequence, part: str) -> None:
    paths = sorted((REAL / folder).rglob("*.dcm"))
    assert paths
    for path in paths:
        ds = dcmread(path, stop_before_pixels=True)
        told = classify_sequence(ds)
        assert (told.sequence, body_part(ds), not_embeddable(ds.SOPClassUID, told)) == (sequence, part, None)
