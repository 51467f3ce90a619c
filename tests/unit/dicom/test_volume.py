"""Stacks and volumes: whatever the order, the numbering and the sense of the axes, the same picture."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from pacs_cbir.dicom.stack import Stack, read_stacks
from pacs_cbir.dicom.volume import FrameReference, Plane, build_volume
from pacs_cbir.errors import DecodingError, NotAVolume, NotEmbeddable
from tests.dicom_factory import mr_instance

REAL = Path(__file__).parents[4] / "shared" / "data" / "dicom"
Array = npt.NDArray[Any]

# A head, so to speak: no two voxels alike, no symmetry. Axes: towards the left, posterior, head.
SHAPE = (5, 6, 4)
SPACING = (0.5, 0.75, 3.0)
ORIGIN = np.array([-10.0, -20.0, 30.0])
BODY = np.random.default_rng(7).permutation(int(np.prod(SHAPE))).reshape(SHAPE).astype(np.uint16)
AXES = np.eye(3)


@dataclass
class Slice:
    position: Sequence[float]
    orientation: Sequence[float]
    pixels: Array
    pixel_spacing: Sequence[float] = (1.0, 1.0)
    attributes: dict[str, Any] = field(default_factory=dict)


def cut(normal: int, down: int, across: int, signs: Sequence[int] = (1, 1, 1)) -> list[Slice]:
    """The body as slices: their axes are these of the body, run through forwards or backwards."""
    axes = (normal, down, across)
    array = BODY.transpose(axes)[:: signs[0], :: signs[1], :: signs[2]]
    first = ORIGIN + sum(
        AXES[axis] * SPACING[axis] * (SHAPE[axis] - 1) for axis, sign in zip(axes, signs, strict=True) if sign < 0
    )
    return [
        Slice(
            first + i * signs[0] * SPACING[normal] * AXES[normal],
            [*(AXES[across] * signs[2]), *(AXES[down] * signs[1])],
            pixels,
            (SPACING[down], SPACING[across]),
        )
        for i, pixels in enumerate(array)
    ]


def base(uid: str, sop_class: str = MRImageStorage) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2", "1.2.1", "1.2.9"
    ds.PatientID, ds.Modality = "1", "MR"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    return ds


def save(ds: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax in {RLELossless, JPEGLSLossless, JPEG2000Lossless}:
        ds.compress(syntax, generate_instance_uid=False)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)
    return path


def classic(folder: Path, slices: Sequence[Slice], syntax: str = ExplicitVRLittleEndian) -> list[Path]:
    paths = []
    for i, s in enumerate(slices):
        ds = base(f"1.2.1.{i + 1}")
        ds.ImagePositionPatient = [f"{v:.6g}" for v in s.position]
        ds.ImageOrientationPatient = [f"{v:.6g}" for v in s.orientation]
        ds.PixelSpacing = list(s.pixel_spacing)
        ds.InstanceNumber = i + 1
        ds.Rows, ds.Columns = s.pixels.shape
        ds.PixelData = s.pixels.tobytes()
        ds["PixelData"].VR = "OW"
        for keyword, value in s.attributes.items():
            setattr(ds, keyword, value)
        paths.append(save(ds, folder / f"{i:04}", syntax))
    return paths


def item(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def enhanced(folder: Path, slices: Sequence[Slice], groups: Sequence[dict[str, Dataset]] | None = None) -> Path:
    ds = base("1.2.1.77", EnhancedMRImageStorage)
    ds.NumberOfFrames = len(slices)
    ds.Rows, ds.Columns = slices[0].pixels.shape
    ds.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=list(slices[0].pixel_spacing), SliceThickness=2.0)],
            PlaneOrientationSequence=[item(ImageOrientationPatient=list(map(float, slices[0].orientation)))],
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = []
    for i, s in enumerate(slices):
        frame = item(
            PlanePositionSequence=[item(ImagePositionPatient=[float(f"{v:.6g}") for v in s.position])],
            PixelValueTransformationSequence=[item(RescaleSlope=2.0, RescaleIntercept=float(-i), RescaleType="US")],
        )
        for keyword, group in (groups[i] if groups else {}).items():
            setattr(frame, keyword, [group])
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    ds.PixelData = np.stack([s.pixels for s in slices]).tobytes()
    ds["PixelData"].VR = "OW"
    return save(ds, folder / "enhanced")


def the_volume(paths: Sequence[Path]) -> Any:
    (stack,) = read_stacks(paths)
    return build_volume(stack)


# The display order of each plane, as axes of the body and the senses in which they are run through.
DISPLAY: dict[Plane, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    Plane.AXIAL: ((2, 1, 0), (1, 1, 1)),
    Plane.CORONAL: ((1, 2, 0), (1, -1, 1)),
    Plane.SAGITTAL: ((0, 2, 1), (1, -1, 1)),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_order_numbers_and_flips_do_not_matter(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("series")
    axes = data.draw(st.permutations(range(3)))
    slices = cut(*axes, signs=data.draw(st.tuples(*[st.sampled_from([1, -1])] * 3)))
    numbers = data.draw(st.permutations(range(100, 100 + len(slices))))
    for s, number in zip(slices, numbers, strict=True):
        s.attributes = {"InstanceNumber": number}
    paths = data.draw(st.permutations(classic(folder, slices)))

    volume = the_volume(paths)

    order, signs = DISPLAY[volume.plane]
    assert volume.plane == {0: Plane.SAGITTAL, 1: Plane.CORONAL, 2: Plane.AXIAL}[axes[0]]
    expected = BODY.transpose(order)[:: signs[0], :: signs[1], :: signs[2]]
    np.testing.assert_array_equal(volume.array, expected)
    np.testing.assert_allclose(volume.spacing, [SPACING[a] for a in order], rtol=1e-5)
    # The voxel's place in the patient, through the affine and through the body's own grid.
    for index in [(0, 0, 0), (1, 2, 1), tuple(n - 1 for n in expected.shape)]:
        at = [
            ORIGIN[a] + SPACING[a] * (index[i] if signs[i] > 0 else SHAPE[a] - 1 - index[i])
            for i, a in sorted(enumerate(order), key=lambda pair: pair[1])
        ]
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], at, atol=1e-4)
    by_uid = {dcmread(p).SOPInstanceUID: dcmread(p).pixel_array for p in paths}
    for picture, frame in zip(volume.array, volume.frames, strict=True):
        assert frame.frame_number == 1
        assert sorted(by_uid[frame.sop_instance_uid].ravel()) == sorted(picture.ravel())


def tilted(degrees: float) -> Array:
    a = np.deg2rad(degrees)
    return np.array([[1, 0, 0], [0, np.cos(a), np.sin(a)], [0, -np.sin(a), np.cos(a)]])


@pytest.mark.parametrize(("degrees", "plane"), [(20, Plane.AXIAL), (44, Plane.AXIAL), (46, Plane.CORONAL)])
def test_obliques_go_to_the_nearest_plane_and_are_not_resampled(tmp_path: Path, degrees: float, plane: Plane) -> None:
    slices = cut(2, 1, 0)
    turn = tilted(degrees)
    for s in slices:
        s.position = turn @ s.position
        s.orientation = [*(turn @ s.orientation[:3]), *(turn @ s.orientation[3:])]
    volume = the_volume(classic(tmp_path, slices))
    assert volume.plane == plane
    assert sorted(volume.array.ravel()) == sorted(BODY.ravel())
    np.testing.assert_allclose(volume.spacing, (SPACING[2], SPACING[1], SPACING[0]), rtol=1e-4)


def test_echoes_and_b_values_are_told_apart(tmp_path: Path) -> None:
    slices = []
    for echo, b in itertools.product((10.0, 80.0), (0.0, 500.0, 1000.0)):
        for s in cut(2, 1, 0):
            s.pixels = s.pixels + np.uint16(echo + b)
            s.attributes = {"EchoTime": echo, "DiffusionBValue": b}
            slices.append(s)
    mixed = [slices[i] for i in np.random.default_rng(1).permutation(len(slices))]

    stacks = read_stacks(classic(tmp_path, mixed))

    assert {(s.key.echo_time, s.key.b_value) for s in stacks} == set(
        itertools.product((10.0, 80.0), (0.0, 500.0, 1000.0))
    )
    for stack in stacks:
        expected = BODY.transpose(2, 1, 0) + np.uint16((stack.key.echo_time or 0) + (stack.key.b_value or 0))
        np.testing.assert_array_equal(build_volume(stack).array, expected)
        json.dumps(stack.key.as_dict())


SEPARATING: list[tuple[str, Callable[[int], dict[str, Any]]]] = [
    ("temporal_position", lambda i: {"TemporalPositionIdentifier": i + 1}),
    ("image_type", lambda i: {"ImageType": ["ORIGINAL", "PRIMARY", "MP"[i]]}),
    ("frame_of_reference_uid", lambda i: {"FrameOfReferenceUID": f"1.2.{i}"}),
    ("contrast_phase", lambda i: {"ContrastBolusAgentPhase": ["PRE_CONTRAST", "POST_CONTRAST"][i]}),
    ("separated_value", lambda i: {"TriggerTime": 20.0 * i}),
    ("separated_value", lambda i: {"DiffusionGradientOrientation": [float(i), 1.0 - i, 0.0]}),
    ("separated_value", lambda i: {"AcquisitionNumber": i}),
]


@pytest.mark.parametrize(("name", "attributes"), SEPARATING)
def test_what_separates_stacks(tmp_path: Path, name: str, attributes: Callable[[int], dict[str, Any]]) -> None:
    slices = [s for i in range(2) for s in cut(2, 1, 0) if not s.attributes.update(attributes(i))]
    stacks = read_stacks(classic(tmp_path, slices))
    assert [len(s.frames) for s in stacks] == [4, 4]
    assert len({getattr(s.key, name) for s in stacks}) == 2
    for stack in stacks:
        np.testing.assert_array_equal(build_volume(stack).array, BODY.transpose(2, 1, 0))


def test_orientations_and_sizes_are_told_apart(tmp_path: Path) -> None:
    small = cut(2, 1, 0)
    for s in small:
        s.pixels = np.ascontiguousarray(s.pixels[:-1])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    three = read_stacks(classic(tmp_path / "a", [*cut(2, 1, 0), *cut(0, 1, 2), *cut(1, 2, 0)]))
    assert {build_volume(s).plane for s in three} == set(Plane)
    two = read_stacks(classic(tmp_path / "b", [*cut(2, 1, 0), *small]))
    assert {build_volume(s).array.shape for s in two} == {(4, 6, 5), (4, 5, 5)}


def test_small_noise_does_not_separate(tmp_path: Path) -> None:
    slices = cut(2, 1, 0)
    for i, s in enumerate(slices):
        s.orientation = np.array(s.orientation) + 1e-5 * (-1) ** i
        s.attributes = {"EchoTime": 11.05 + 0.001 * (-1) ** i}
    np.testing.assert_array_equal(the_volume(classic(tmp_path, slices)).array, BODY.transpose(2, 1, 0))


def shifted(amount: float) -> list[Slice]:
    slices = cut(2, 1, 0)
    slices[1].position = np.add(slices[1].position, [0, 0, amount])
    return slices


def test_spacing_may_vary_by_the_tolerance(tmp_path: Path) -> None:
    volume = the_volume(classic(tmp_path, shifted(0.04 * SPACING[2])))
    assert volume.spacing[0] == pytest.approx(SPACING[2])
    np.testing.assert_array_equal(volume.array, BODY.transpose(2, 1, 0))


def at_places(*places: float) -> list[Slice]:
    """Slices at multiples of one distance, or between them."""
    (one, *_) = cut(2, 1, 0)
    return [Slice(np.add(one.position, [0, 0, place * SPACING[2]]), one.orientation, one.pixels) for place in places]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("missing", [{1}, {4}, {1, 3}, {2, 3, 4}], ids=str)
def test_slices_that_are_missing_between_others_leave_the_others_where_they_are(
    tmp_path: Path, missing: set[int], sign: int
) -> None:
    (tmp_path / "all").mkdir()
    whole = the_volume(classic(tmp_path / "all", slices := cut(1, 2, 0, (sign, 1, 1))))
    volume = the_volume(classic(tmp_path, [one for i, one in enumerate(slices) if i not in missing]))
    gaps = missing if sign > 0 else {len(slices) - 1 - i for i in missing}
    assert {i for i, frame in enumerate(volume.frames) if frame is None} == gaps
    np.testing.assert_allclose(volume.affine, whole.affine)
    assert (volume.plane, volume.array.shape) == (whole.plane, whole.array.shape)
    there = [i for i in range(len(slices)) if i not in gaps]
    np.testing.assert_array_equal(volume.array[there], whole.array[there])
    for i in gaps:
        bridged = [np.interp(i, there, values) for values in whole.array[there].reshape(len(there), -1).T]
        np.testing.assert_allclose(volume.array[i].ravel(), bridged)


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        (shifted(0.07 * SPACING[2]), "distances between slices vary"),
        (at_places(0, 1, 6), "distances between slices vary"),
        (at_places(0, 1.07, 2, 4), "distances between slices vary"),
        (at_places(0, 3, 5, 8, 10, 13), "distances between slices vary"),
        (
            [Slice(np.add(s.position, [i, 0, 0]), s.orientation, s.pixels) for i, s in enumerate(at_places(0, 1, 3))],
            "distances",
        ),
        ([*cut(2, 1, 0), *cut(2, 1, 0)], "at one position"),
        (
            [Slice(np.add(s.position, [3.0 * i, 0, 0]), s.orientation, s.pixels) for i, s in enumerate(cut(2, 1, 0))],
            "shifted",
        ),
        ([Slice((0, 0, 0), (1, 0, 0, 0.1, 1, 0), BODY[0])], "perpendicular"),
        ([Slice((0, 0, 0), (0, 0, 0, 0, 0, 0), BODY[0])], "perpendicular"),
        ([Slice((0, 0, 0), (1, 0, 0, 0, 1, 0), BODY[0], (0, 0))], "no spacing"),
        ([Slice((0, 0, 0), (1, 0, 0, 0, 1, 0), BODY[0], attributes={"ImagePositionPatient": None})], "no position"),
        ([Slice((0, 0, 0), (1, 0, 0, 0, 1, 0), BODY[0], attributes={"PhotometricInterpretation": "RGB"})], "RGB"),
    ],
)
def test_what_is_no_volume_says_why(tmp_path: Path, slices: list[Slice], reason: str) -> None:
    (stack,) = read_stacks(classic(tmp_path, slices))
    with pytest.raises(NotAVolume, match=reason):
        build_volume(stack)


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [({"SliceThickness": 5.0}, 5.0), ({"SpacingBetweenSlices": 6.0}, 6.0), ({}, 1.0)],
)
def test_a_single_slice_is_a_volume(tmp_path: Path, attributes: dict[str, Any], spacing: float) -> None:
    (only,) = [s for s in cut(2, 1, 0)[:1] if not s.attributes.update(attributes)]
    volume = the_volume(classic(tmp_path, [only]))
    assert volume.array.shape == (1, 6, 5)
    assert volume.spacing == pytest.approx((spacing, 0.75, 0.5))


def test_values_are_rescaled_and_padding_is_no_value(tmp_path: Path) -> None:
    slices = cut(2, 1, 0)
    for i, s in enumerate(slices):
        s.pixels = s.pixels.astype(np.int16) + 1
        s.pixels[0, 0] = -2000
        s.attributes = {"PixelRepresentation": 1, "RescaleSlope": 0.5, "RescaleIntercept": -7 - i}
        s.attributes["PixelPaddingValue"] = -2000
    volume = the_volume(classic(tmp_path, slices))
    for i, s in enumerate(slices):
        lowest = np.sort(s.pixels.ravel())[1]
        expected = np.where(s.pixels == -2000, lowest, s.pixels) * 0.5 - 7 - i
        np.testing.assert_allclose(volume.array[i], expected)


def test_enhanced_frames_are_told_apart_and_sorted(tmp_path: Path) -> None:
    slices, groups = [], []
    for echo in (10.0, 80.0):
        for i in (2, 0, 3, 1):
            slices.append(cut(2, 1, 0)[i])
            groups.append({"MREchoSequence": item(EffectiveEchoTime=echo)})
    stacks = read_stacks([enhanced(tmp_path, slices, groups)])

    assert [s.key.echo_time for s in stacks] == [10.0, 80.0]
    for number, stack in enumerate(stacks):
        volume = build_volume(stack)
        sources = [1 + 4 * number + (2, 0, 3, 1).index(i) for i in range(4)]
        assert volume.frames == tuple(FrameReference("1.2.1.77", n) for n in sources)
        for i, n in enumerate(sources):
            np.testing.assert_array_equal(volume.array[i], 2.0 * BODY.transpose(2, 1, 0)[i] - (n - 1))


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    slices = cut(2, 1, 0)
    for s in slices:
        # The encoder of JPEG 2000 refuses tiny pictures.
        s.pixels = np.tile(s.pixels, (12, 12))
    volume = the_volume(classic(tmp_path, slices, syntax))
    np.testing.assert_array_equal(volume.array, np.tile(BODY.transpose(2, 1, 0), (1, 12, 12)))


def no_codestream(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.PixelData = encapsulate([b"no codestream of any kind."])
    ds["PixelData"].is_undefined_length = True


def test_what_cannot_be_decoded_names_its_transfer_syntax(tmp_path: Path) -> None:
    (path, *_) = classic(tmp_path, cut(2, 1, 0)[:1])
    for damage in (
        lambda ds: delattr(ds, "PixelData"),
        lambda ds: setattr(ds, "PixelData", ds.PixelData[:-4]),
        lambda ds: setattr(ds, "BitsAllocated", 32),
        lambda ds: setattr(ds, "BitsAllocated", 12),
        lambda ds: setattr(ds, "Rows", 7),
        no_codestream,
        lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", "1.2.3.4.5"),
    ):
        ds = dcmread(path)
        damage(ds)
        ds.save_as(tmp_path / "damaged", implicit_vr=False, little_endian=True)
        (stack,) = read_stacks([tmp_path / "damaged"])
        with pytest.raises(DecodingError, match=r"in (Explicit VR Little Endian|JPEG 2000|1\.2\.3\.4\.5)"):
            build_volume(stack)


@pytest.mark.parametrize("value", ["abc", "", [1, 2], float("nan")])
@pytest.mark.parametrize(
    "keyword", ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"]
)
def test_a_header_that_does_not_say_how_pixels_lie_is_named_and_not_quoted(
    tmp_path: Path, keyword: str, value: Any
) -> None:
    (path, *_) = classic(tmp_path, cut(2, 1, 0)[:1])
    ds = dcmread(path)
    vr = "LO" if isinstance(value, str) else "US" if isinstance(value, list) else "FD"
    ds[keyword] = DataElement(keyword, vr, value)
    ds.save_as(tmp_path / "damaged", implicit_vr=False, little_endian=True)
    (stack,) = read_stacks([tmp_path / "damaged"])
    with pytest.raises(NotAVolume) as raised:
        build_volume(stack)
    assert str(raised.value) == f"the pixels of a slice cannot be read: {keyword} is no whole number"


def test_what_is_not_embedded_is_not_decoded(tmp_path: Path) -> None:
    slices = cut(2, 1, 0)
    for s in slices:
        s.attributes = {"SOPClassUID": SecondaryCaptureImageStorage, "PixelData": b"\0\0"}
    (stack,) = read_stacks(classic(tmp_path, slices))
    assert stack.reason == "not embedded: Secondary Capture Image Storage"
    assert len(stack.frames) == 4
    with pytest.raises(NotEmbeddable, match="Secondary Capture"):
        build_volume(stack)


def test_a_large_enhanced_image_needs_little_more_than_its_volume(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (256, 256), dtype=np.uint16)
    # Coronal, the wrong way round: the volume is flipped and not copied for it.
    slices = [Slice((0, -i, 0), (-1, 0, 0, 0, 0, 1), pixels) for i in range(160)]
    path = enhanced(tmp_path, slices)

    tracemalloc.start()
    volume = the_volume([path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert volume.array.shape == (160, 256, 256)
    assert volume.plane == Plane.CORONAL
    assert peak < 3 * path.stat().st_size


needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real series are not here")


def real(folder: str) -> list[Stack]:
    paths = {dcmread(p, stop_before_pixels=True).SOPInstanceUID: p for p in sorted((REAL / folder).rglob("*.dcm"))}
    return read_stacks(list(paths.values()))


@needs_real
def test_real_transfer_syntaxes_decode_to_the_same_pixels() -> None:
    stacks = real("transfer-syntaxes")
    assert len(stacks) == 9
    volumes = [build_volume(s) for s in stacks]
    # A mosaic of 35 slices, 6 by 6.
    whole = dcmread(REAL / "transfer-syntaxes" / "1.dcm").pixel_array
    np.testing.assert_array_equal(volumes[0].array[8], whole[64:128, 128:192])
    for volume in volumes:
        assert volume.array.shape == (35, 64, 64)
        assert volume.spacing == pytest.approx((3.6, 3.25, 3.25), rel=1e-4)
        assert volume.plane == Plane.AXIAL
        np.testing.assert_array_equal(volume.array, volumes[0].array)
        np.testing.assert_array_equal(volume.affine, volumes[0].affine)


@needs_real
@pytest.mark.parametrize(
    ("folder", "shape", "plane", "spacing"),
    [
        ("siemens-mprage-study/t1_MPRAGEcr_noGRAPPA_19", (176, 256, 256), Plane.SAGITTAL, (1, 1, 1)),
        ("siemens-mprage-study/gre_field_mapping_3", (36, 64, 64), Plane.AXIAL, (3.6, 3, 3)),
        ("siemens-enhanced-t1/5_anat-T1w_acq-tfl", (96, 128, 128), Plane.SAGITTAL, (2, 2, 2)),
        ("siemens-enhanced-t1/6_anat-T1w_acq-tfl", (96, 128, 128), Plane.SAGITTAL, (2, 2, 2)),
        ("ge-pd-big-endian", (20, 256, 256), Plane.AXIAL, (7.0, 0.859375, 0.859375)),
    ],
)
def test_real_volumes(folder: str, shape: tuple[int, ...], plane: Plane, spacing: tuple[float, ...]) -> None:
    (stack,) = real(folder)
    volume = build_volume(stack)
    assert (volume.array.shape, volume.plane) == (shape, plane)
    assert volume.spacing == pytest.approx(spacing, rel=0.01)
    # Heads are upright: the uppermost tenth of the picture is emptier than its middle.
    if plane == Plane.SAGITTAL:
        middle = volume.array[shape[0] // 2]
        assert middle[: shape[1] // 20].mean() < 0.5 * middle[shape[1] // 3 : shape[1] // 2].mean()


@needs_real
def test_real_field_map_of_which_half_the_images_are_missing() -> None:
    stacks = real("siemens-mprage-study/gre_field_mapping_2")
    assert [(s.key.echo_time, len(s.frames)) for s in stacks] == [(4.9, 18), (7.4, 18)]
    for stack in stacks:
        volume = build_volume(stack)
        assert volume.spacing[0] == pytest.approx(3.6, rel=0.01)
        places = {frame.sop_instance_uid: place for place, frame in enumerate(volume.frames) if frame is not None}
        assert len(places) == 18 < len(volume.frames) <= 36
        for frame in stack.frames:
            away = np.array(frame.numbers_of("ImagePositionPatient", 3)) - volume.affine[:3, 3]
            along = away @ volume.affine[:3, 0] / volume.spacing[0]
            assert along == pytest.approx(places[frame.sop_instance_uid] * volume.spacing[0], abs=0.1)


@needs_real
def test_real_moving_knee_is_one_stack_a_moment() -> None:
    stacks = real("enhanced-fo-dicom")
    assert sorted(s.key.temporal_position or 0 for s in stacks) == list(range(1, 20))
    for stack in stacks:
        volume = build_volume(stack)
        assert (volume.array.shape, volume.plane, stack.body_part) == ((1, 256, 256), Plane.SAGITTAL, "KNEE")
        assert volume.frames[0].frame_number == stack.key.temporal_position


def read_with(tmp_path: Path, keyword: str, text: bytes) -> list[Stack]:
    """Three slices with a header value that is not quite what its VR allows."""
    paths = [tmp_path / f"{number}.dcm" for number in range(3)]
    for number, path in enumerate(paths):
        ds = mr_instance(number=number, size=8, ImagePositionPatient=["-4", "-4", str(6 * number)])
        tag = Tag(keyword)
        ds[tag] = RawDataElement(tag, "DS", len(text), text, 0, False, True)
        ds.save_as(path, enforce_file_format=True)
    return read_stacks(paths)


@pytest.mark.parametrize("keyword", ["SliceThickness", "SliceLocation", "WindowCenter"])
def test_what_a_volume_does_not_need_may_be_unreadable(tmp_path: Path, keyword: str) -> None:
    [stack] = read_with(tmp_path, keyword, b"abc ")
    assert len(build_volume(stack).frames) == 3


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("ImagePositionPatient", rb"abc\1\2 "),
        ("ImageOrientationPatient", rb"abc\1\2 "),
        ("PixelSpacing", rb"abc\1 "),
        ("RescaleSlope", b"abc "),
        ("RescaleIntercept", b"abc "),
    ],
)
def test_what_a_volume_needs_is_named_where_it_is_unreadable(tmp_path: Path, keyword: str, text: bytes) -> None:
    [stack] = read_with(tmp_path, keyword, text)
    with pytest.raises(NotAVolume, match=f"{keyword} is n") as raised:
        build_volume(stack)
    assert "abc" not in str(raised.value)
