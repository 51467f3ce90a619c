"""Header reading: whatever a device or an attacker sends, a record or one of two exceptions."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)

from pacs_cbir.dicom.elements import Element, text_values
from pacs_cbir.dicom.instance import MAX_META_ELEMENTS, read_instance
from pacs_cbir.dicom.keywords import PATIENT_STUDY_KEYWORDS, SERIES_KEYWORDS
from pacs_cbir.errors import InvalidIdentifier, NotDicom

REAL = Path(__file__).parents[4] / "shared" / "data" / "dicom"


def mr_image(**attributes: object) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = "1.2.3.4"
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = "1.2.3.1"
    ds.PatientID = " 42 "
    ds.Modality = "MR"
    ds.Rows, ds.Columns = 4, 6
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def encode(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", MRImageStorage)
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds.file_meta = meta
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def with_pixels(ds: Dataset) -> Dataset:
    ds.PixelData = np.arange(24, dtype="<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def write(folder: Path, content: bytes) -> Path:
    path = folder / "received"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_every_native_encoding_gives_the_same_header(tmp_path: Path, syntax: str) -> None:
    ds = mr_image(PatientName="Doe^Jane", EchoTime="11.50", ImageType=["ORIGINAL", "PRIMARY"], InstanceNumber=7)
    content = encode(with_pixels(ds), syntax)

    instance = read_instance(write(tmp_path, content))

    assert instance.transfer_syntax_uid == syntax
    assert (instance.sop_instance_uid, instance.study_instance_uid) == ("1.2.3.4", "1.2.3")
    assert (instance.patient_id, instance.issuer_of_patient_id, instance.modality) == ("42", "", "MR")
    assert (instance.rows, instance.columns, instance.number_of_frames, instance.instance_number) == (4, 6, None, 7)
    assert (instance.bits_allocated, instance.bits_stored, instance.high_bit) == (16, 12, 11)
    assert instance.has_pixels
    assert instance.study_attributes["PatientName"] == ["Doe^Jane"]
    assert instance.series_attributes["EchoTime"] == ["11.50"]
    assert instance.instance_attributes["ImageType"] == ["ORIGINAL", "PRIMARY"]
    assert instance.instance_attributes["Rows"] == ["4"]
    assert (instance.file_size, instance.file_sha256) == (len(content), hashlib.sha256(content).digest())


def test_pixel_hash_ignores_the_header_and_sees_the_pixels(tmp_path: Path) -> None:
    first = read_instance(write(tmp_path, encode(with_pixels(mr_image(PatientName="A")))))
    corrected = read_instance(write(tmp_path, encode(with_pixels(mr_image(PatientName="Somebody^Else")))))
    other = with_pixels(mr_image(PatientName="A"))
    other.PixelData = b"\1" + other.PixelData[1:]
    changed = read_instance(write(tmp_path, encode(other)))

    assert first.pixel_sha256 == hashlib.sha256(np.arange(24, dtype="<u2").tobytes()).digest()
    assert corrected.pixel_sha256 == first.pixel_sha256
    assert corrected.file_sha256 != first.file_sha256
    assert changed.pixel_sha256 != first.pixel_sha256


def test_encapsulated_pixels(tmp_path: Path) -> None:
    ds = mr_image()
    ds.PixelData = encapsulate([b"\0" * 64, b"\1" * 64])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    content = encode(ds, RLELossless)

    assert read_instance(write(tmp_path, content)).has_pixels
    with pytest.raises(NotDicom):
        read_instance(write(tmp_path, content[:-70]))


def test_encapsulated_document_is_hashed_like_pixels(tmp_path: Path) -> None:
    def document(title: str) -> bytes:
        ds = mr_image(SOPClassUID=EncapsulatedPDFStorage, DocumentTitle=title, EncapsulatedDocument=b"%PDF" * 5000)
        return encode(ds)

    first, second = (read_instance(write(tmp_path, document(title))) for title in ("a", "bb"))

    assert not first.has_pixels
    assert first.pixel_sha256 == second.pixel_sha256 != first.file_sha256


@pytest.mark.parametrize(
    ("character_set", "name", "encoded"),
    [
        ("ISO_IR 100", "Müller^Jörg", None),
        ("ISO_IR 192", "Ёлкина^Анна", None),
        # The examples of PS3.5 H.3.1 and I.2.
        (
            ["", "ISO 2022 IR 87"],
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        ),
        (
            ["", "ISO 2022 IR 149"],
            "Hong^Gildong=洪^吉洞=홍^길동",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        ),
    ],
)
def test_names_are_decoded(tmp_path: Path, character_set: object, name: str, encoded: bytes | None) -> None:
    ds = mr_image(SpecificCharacterSet=character_set)
    if encoded is None:
        ds.PatientName = name
    else:
        ds.add_new("PatientName", "PN", encoded)
    content = encode(with_pixels(ds))
    assert encoded is None or encoded in content

    instance = read_instance(write(tmp_path, content))

    assert instance.study_attributes["PatientName"] == [name]
    assert "SpecificCharacterSet" not in instance.instance_attributes


def test_what_is_no_key_is_left_out(tmp_path: Path) -> None:
    ds = with_pixels(mr_image(StudyDescription="MR\0head", ImageComments="x" * 1025, SoftwareVersions=["1", "2"]))
    ds.ReferencedImageSequence = [Dataset()]
    ds.RedPaletteColorLookupTableData = b"\0\1"
    ds.private_block(0x0029, "SOMEBODY", create=True).add_new(0x10, "LO", "secret")
    ds.AccessionNumber = ""

    instance = read_instance(write(tmp_path, encode(ds)))

    levels = (instance.study_attributes, instance.series_attributes, instance.instance_attributes)
    assert instance.study_attributes["StudyDescription"] == ["MRhead"]
    assert instance.series_attributes["SoftwareVersions"] == ["1", "2"]
    found = set().union(*levels)
    assert not found & {"ImageComments", "ReferencedImageSequence", "RedPaletteColorLookupTableData", "AccessionNumber"}
    assert "secret" not in json.dumps(levels)
    assert "\\u0000" not in json.dumps(levels)
    assert sum(len(level) for level in levels) == len(found)


def test_malformed_optional_values_do_not_matter(tmp_path: Path) -> None:
    content = encode(with_pixels(mr_image(InstanceNumber=7, EchoTime="11.5", StudyDate="20200101")))
    for good, bad in ((b"7 ", b"x "), (b"20200101", b"2020-1-1"), (b"11.5", b"1\xff,5")):
        assert content.count(good) == 1
        content = content.replace(good, bad)
    # Rows of one byte instead of two.
    rows = struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 4)
    content = content.replace(rows, struct.pack("<HH2sHB", 0x28, 0x10, b"US", 1, 4))

    instance = read_instance(write(tmp_path, content))

    assert (instance.instance_number, instance.rows, instance.columns) == (None, None, 6)
    assert instance.study_attributes["StudyDate"] == ["2020-1-1"]


@pytest.mark.parametrize("uid", ["1.2.840.0010.5", "1.2.3\0", "1.2.3  ", "1" * 64])
def test_uids_that_devices_write_are_tolerated(tmp_path: Path, uid: str) -> None:
    ds = with_pixels(mr_image())
    ds.add_new("StudyInstanceUID", "LO", uid)
    ds["StudyInstanceUID"].VR = "UI"
    assert read_instance(write(tmp_path, encode(ds))).study_instance_uid == uid.rstrip("\0 ")


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("uid", [None, "", "../../etc/passwd", "1.2.../3", "1..2", "1.2.", "1.2\\3.4", "1" * 65, "1.٢"])
def test_uids_that_are_none_are_refused(tmp_path: Path, keyword: str, uid: str | None) -> None:
    ds = with_pixels(mr_image())
    content = encode(ds)
    if uid is None:
        del ds[keyword]
    else:
        ds.add_new(keyword, "OB", uid.encode())
    # Through the raw encoding: pydicom would refuse to write some of these as UI.
    out = io.BytesIO()
    del ds.file_meta
    ds.save_as(out, implicit_vr=True, little_endian=True)
    meta = content[: content.index(struct.pack("<HH2s", 0x0008, 0x0016, b"UI"))]
    meta = meta.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")

    with pytest.raises(InvalidIdentifier, match=keyword) as raised:
        read_instance(write(tmp_path, meta + out.getvalue()))
    assert not uid or uid not in str(raised.value)


def test_garbage_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"DICM", b"\0" * 128 + b"DICM", b"%PDF-1.4" * 100, b"\0" * 128 + b"DICM" + b"\xff" * 1000):
        with pytest.raises(NotDicom):
            read_instance(write(tmp_path, content))


def test_endless_meta_information_is_refused(tmp_path: Path) -> None:
    content = encode(with_pixels(mr_image()))
    more = struct.pack("<HH2sH", 0x0002, 0x0102, b"SH", 0) * (MAX_META_ELEMENTS + 1)
    with pytest.raises(NotDicom, match="more than 1000 elements"):
        read_instance(write(tmp_path, content[:132] + more + content[132:]))


def test_a_value_of_four_gigabytes_is_refused(tmp_path: Path) -> None:
    content = encode(with_pixels(mr_image()))
    pixels = content.rindex(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    claimed = content[: pixels + 8] + struct.pack("<I", 0xFFFFFFF0) + content[pixels + 12 :]
    with pytest.raises(NotDicom, match="more bytes"):
        read_instance(write(tmp_path, claimed))


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = encode(with_pixels(mr_image(PatientName="Doe^Jane")))
    whole = len(read_instance(write(tmp_path, content)).instance_attributes)
    for end in range(len(content)):
        try:
            instance = read_instance(write(tmp_path, content[:end]))
        except (NotDicom, InvalidIdentifier):
            continue
        # Between two elements nothing tells that more should follow.
        assert not instance.has_pixels
        assert len(instance.instance_attributes) <= whole


def test_a_deflate_bomb_stays_small(tmp_path: Path) -> None:
    compressed = zlib.compressobj(9, wbits=-15)
    plain = encode(with_pixels(mr_image()), ExplicitVRLittleEndian)
    data_set = plain[plain.index(struct.pack("<HH2s", 0x0008, 0x0016, b"UI")) :]
    meta = encode(mr_image(), DeflatedExplicitVRLittleEndian)
    meta = meta[: 128 + 4 + 12 + struct.unpack("<I", meta[140:144])[0]]
    comment = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UT", 0, 400 * 2**20)
    at = data_set.index(struct.pack("<HH2s", 0x0010, 0x0020, b"LO"))
    bomb = compressed.compress(data_set[:at] + comment)
    for _ in range(400):
        bomb += compressed.compress(b" " * 2**20)
    bomb += compressed.compress(data_set[at:]) + compressed.flush()
    assert len(bomb) < 2**20

    tracemalloc.start()
    with pytest.raises(NotDicom):
        read_instance(write(tmp_path, meta + bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_a_long_deflated_image_is_read_without_inflating_it(tmp_path: Path) -> None:
    ds = mr_image()
    ds.PixelData = b"\0" * (40 * 2**20)
    ds["PixelData"].VR = "OW"
    instance = read_instance(write(tmp_path, encode(ds, DeflatedExplicitVRLittleEndian)))
    assert instance.has_pixels
    assert instance.pixel_sha256 == instance.file_sha256


def test_a_cut_or_damaged_deflated_file_is_refused(tmp_path: Path) -> None:
    content = encode(with_pixels(mr_image()), DeflatedExplicitVRLittleEndian)
    for damaged in (content[:-10], content[:-60] + b"\xff" * 60):
        with pytest.raises(NotDicom):
            read_instance(write(tmp_path, damaged))


def test_sequences_without_end_cost_no_memory(tmp_path: Path) -> None:
    content = encode(with_pixels(mr_image()))
    at = content.index(struct.pack("<HH2s", 0x0010, 0x0020, b"LO"))
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 200_000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + items
    path = write(tmp_path, content[:at] + sequence + content[at:])

    tracemalloc.start()
    assert read_instance(path).patient_id == "42"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20

    nested = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    nested = (nested + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 100_000
    with pytest.raises(NotDicom, match="nested"):
        read_instance(write(tmp_path, content[:at] + nested))


def test_nested_sequences_of_undefined_length_are_passed_over(tmp_path: Path) -> None:
    inner = Dataset()
    inner.PatientID = "not this one"
    outer = Dataset()
    outer.ReferencedImageSequence = [inner, Dataset()]
    for item in (inner, outer):
        item.is_undefined_length_sequence_item = True
    outer["ReferencedImageSequence"].is_undefined_length = True
    ds = with_pixels(mr_image())
    ds.SourceImageSequence = [outer]
    ds["SourceImageSequence"].is_undefined_length = True
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian):
        instance = read_instance(write(tmp_path, encode(ds, syntax)))
        assert (instance.patient_id, instance.has_pixels) == ("42", True)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_give_a_record_or_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]))
    content = bytearray(encode(with_pixels(mr_image(PatientName="Doe^Jane")), syntax))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(128, len(content) - 1), st.integers(0, 255)), max_size=4)):
        content[at] = byte
    try:
        instance = read_instance(write(tmp_path, bytes(content)))
    except (NotDicom, InvalidIdentifier):
        return
    assert "/" not in instance.sop_instance_uid
    json.dumps(instance.instance_attributes).encode()


def test_the_levels_hold_the_modules_of_the_standard() -> None:
    # highdicom ships the standard's module tables as data.
    from highdicom._standard_utils import get_module_attribute_map
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    modules = get_module_attribute_map()

    def keywords(*names: str) -> set[str]:
        found = {a["keyword"] for name in names for a in modules[name] if not a["path"]}
        return {k for k in found if dictionary_VR(tag_for_keyword(k) or 0) != "SQ"}

    assert keywords("patient", "general-study", "patient-study") <= PATIENT_STUDY_KEYWORDS
    # Sizes of pixel values are the image's, though the standard lists them here.
    assert (
        keywords("general-series", "frame-of-reference", "contrast-bolus")
        - {
            "SmallestPixelValueInSeries",
            "LargestPixelValueInSeries",
        }
        <= SERIES_KEYWORDS
    )
    assert not PATIENT_STUDY_KEYWORDS & SERIES_KEYWORDS
    assert all(tag_for_keyword(k) is not None for k in PATIENT_STUDY_KEYWORDS | SERIES_KEYWORDS)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real series are not here")
def test_real_files_agree_with_pydicom() -> None:
    paths = sorted(REAL.rglob("*.dcm"))
    assert len(paths) > 200
    hashed = 0
    for path in paths:
        instance = read_instance(path)
        ds = dcmread(path)
        assert instance.sop_instance_uid == ds.SOPInstanceUID
        assert instance.patient_id == ds.PatientID.strip()
        assert instance.rows == ds.Rows
        assert instance.transfer_syntax_uid == ds.file_meta.TransferSyntaxUID
        if path.stat().st_size == ds[0x7FE00010].file_tell + len(ds.PixelData):
            assert instance.pixel_sha256 == hashlib.sha256(ds.PixelData).digest()
            hashed += 1
        for level in (instance.study_attributes, instance.series_attributes, instance.instance_attributes):
            for keyword, values in level.items():
                expected = ds[keyword].value
                assert len(values) == (len(expected) if ds[keyword].VM > 1 else 1), keyword
    assert hashed > 200


@pytest.mark.parametrize("charset", ["utf_7", "utf_16", "cp037"])
def test_a_codec_of_pythons_is_no_character_set(tmp_path: Path, charset: str) -> None:
    content = encode(with_pixels(mr_image(PatientName="+2AA-Doe")))
    named = encode(with_pixels(mr_image(PatientName="+2AA-Doe", SpecificCharacterSet="ISO_IR 100")))
    assert len(named) > len(content)
    swapped = named.replace(b"CS\x0a\x00ISO_IR 100", b"CS" + struct.pack("<H", 14) + charset.ljust(14).encode())
    assert swapped != named
    read = read_instance(write(tmp_path, swapped))
    assert read.study_attributes["PatientName"] == ["+2AA-Doe"]


def test_text_is_without_lone_surrogates() -> None:
    element = Element(0x00100010, "PN", 0, 9, b"+2AA-^Doe", True)
    assert text_values(element, ["utf_7"]) == ["?^Doe"]


def test_text_in_place_of_a_sequence_or_bytes_is_no_attribute(tmp_path: Path) -> None:
    ds = with_pixels(mr_image())
    ds.add_new(0x00081140, "LO", "a sequence?")
    ds.add_new(0x00281201, "LO", "bytes?")
    attributes = read_instance(write(tmp_path, encode(ds))).instance_attributes
    assert not {"ReferencedImageSequence", "RedPaletteColorLookupTableData"} & attributes.keys()
