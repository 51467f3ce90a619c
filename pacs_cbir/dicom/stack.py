"""The instances of one series → stacks of frames that belong to one volume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydicom import config

from pacs_cbir.dicom.body_part import body_part
from pacs_cbir.dicom.frames import MR_IMAGE_SOP_CLASSES, Frame, first_number, private_value_of, read_frames, value_of
from pacs_cbir.dicom.mosaic import is_mosaic, unfolded
from pacs_cbir.dicom.rules import NO_RULES, SiteRules
from pacs_cbir.dicom.sequence import SequenceEvidence, not_embeddable
from pacs_cbir.dicom.sequence_header import header_of

ORIENTATION_TOLERANCE = 1e-3
"""Direction cosines that differ by less are one orientation."""
PIXEL_SPACING_TOLERANCE = 1e-3
"""In mm."""
ECHO_TIME_TOLERANCE = 0.1
"""In ms: some devices write the measured time, which differs a little from slice to slice."""
B_VALUE_TOLERANCE = 1.0
"""In s/mm²."""
POSITION_TOLERANCE = 0.01
"""In mm along the normal: nearer slices are at the same position."""

# From the vendors' conformance statements: group, creator, element.
_PRIVATE_B_VALUES = (
    (0x0019, "SIEMENS MR HEADER", 0x0C),
    (0x0043, "GEMS_PARM_01", 0x39),
    (0x2001, "Philips Imaging DD 001", 0x03),
)
_GE_B_VALUE_OFFSET = 1e9


_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True)
class StackKey:
    """What one stack's frames share and its series' other stacks do not. None and empty mean absent.

    Attributes:
        sop_class_uid, frame_of_reference_uid: as in the header.
        orientation: Image Orientation (Patient), rounded to `ORIENTATION_TOLERANCE`.
        rows, columns: in pixels.
        pixel_spacing: between rows and between columns in mm, rounded to `PIXEL_SPACING_TOLERANCE`.
        image_type: Image Type or Frame Type, and the Complex Image Component where there is one.
        echo_time: in ms.
        echo_number: as in the header.
        b_value: in s/mm².
        temporal_position: identifier or index.
        contrast_phase: Contrast/Bolus Agent Phase.
        separated_by, separated_value: the attribute that tells stacks apart which all of the above do not.
    """

    sop_class_uid: str
    frame_of_reference_uid: str = ""
    orientation: tuple[float, ...] | None = None
    rows: int | None = None
    columns: int | None = None
    pixel_spacing: tuple[float, ...] | None = None
    image_type: tuple[str, ...] = ()
    echo_time: float | None = None
    echo_number: int | None = None
    b_value: float | None = None
    temporal_position: int | None = None
    contrast_phase: str = ""
    separated_by: str = ""
    separated_value: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The key in types that JSON knows."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames of one series that belong to one volume; only headers, the pixels are decoded by `build_volume`.

    Attributes:
        key: what separates it from the series' other stacks.
        frames: in the order of their positions along the normal; by instance and number where they have none.
        sequence: which MR sequence it is.
        body_part: which part of the body; empty where the header does not tell.
        reason: why it is deliberately not embedded; None where it is.
    """

    key: StackKey
    frames: tuple[Frame, ...]
    sequence: SequenceEvidence
    body_part: str
    reason: str | None


def read_stacks(paths: Sequence[Path], rules: SiteRules = NO_RULES) -> list[Stack]:
    """Split the instances of one series, given by their files in any order.

    Args:
        rules: the site's, of which headers are which sequence.

    Raises:
        DecodingError: a header cannot be read.
    """
    # pydicom would warn about every value that is not quite what the standard says, and quote some of them.
    with config.disable_value_validation():
        return split_stacks([frame for path in paths for frame in read_frames(path)], rules)


def split_stacks(frames: Iterable[Frame], rules: SiteRules = NO_RULES) -> list[Stack]:
    """Group the frames of one series by orientation, frame of reference, echo, b-value, temporal position, contrast
    phase, image type and size, in an order that does not depend on that of the frames.

    Frames at one position that these do not separate are told apart by the first attribute that does; where none
    does, they stay together and `build_volume` refuses them.
    """
    ordered = sorted(frames, key=lambda f: (f.sop_instance_uid, f.number))
    images = [f for frame in ordered if frame.sop_class_uid in MR_IMAGE_SOP_CLASSES for f in unfolded(frame)]
    stacks = [
        _stack(key, group, rules)
        for common, members in _grouped(images, _keys(images)).items()
        for key, group in _separated(common, members)
    ]
    others = [f for f in ordered if f.sop_class_uid not in MR_IMAGE_SOP_CLASSES]
    stacks += [
        _stack(key, group, rules)
        for key, group in _grouped(others, [StackKey(f.sop_class_uid) for f in others]).items()
    ]
    return sorted(stacks, key=lambda stack: repr(stack.key))


def _stack(key: StackKey, frames: list[Frame], rules: SiteRules) -> Stack:
    header = frames[0].header()
    if key.b_value is not None:
        header.DiffusionBValue = key.b_value
    in_order = frames
    distances = along_normal(frames)
    if distances is not None:
        in_order = [frames[i] for i in np.argsort(distances, kind="stable")]
    told = rules.classify(header_of(header))
    reason = not_embeddable(key.sop_class_uid, told)
    if reason is None and is_mosaic(frames[0]):
        reason = "not embedded: mosaic without a readable private header"
    return Stack(key, tuple(in_order), told, body_part(header), reason)


def along_normal(frames: Sequence[Frame]) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    """Each frame's distance from the origin along the first one's normal in mm; None where one has no position."""
    orientation = frames[0].numbers_of("ImageOrientationPatient", 6)
    positions = [frame.numbers_of("ImagePositionPatient", 3) for frame in frames]
    if orientation is None or None in positions:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    return np.asarray(np.array(positions, dtype=np.float64) @ normal)


def _keys(frames: list[Frame]) -> list[StackKey]:
    columns = zip(
        _clustered([f.numbers_of("ImageOrientationPatient", 6) for f in frames], ORIENTATION_TOLERANCE),
        _clustered([f.numbers_of("PixelSpacing", 2) for f in frames], PIXEL_SPACING_TOLERANCE),
        _clustered([_single(f.number_of("EchoTime")) for f in frames], ECHO_TIME_TOLERANCE),
        _clustered([_single(b_value(f)) for f in frames], B_VALUE_TOLERANCE),
        strict=True,
    )
    return [
        StackKey(
            sop_class_uid=frame.sop_class_uid,
            frame_of_reference_uid=str(frame.get("FrameOfReferenceUID") or ""),
            orientation=orientation,
            rows=_integer(frame, "Rows"),
            columns=_integer(frame, "Columns"),
            pixel_spacing=spacing,
            image_type=_image_type(frame),
            echo_time=echo[0] if echo else None,
            echo_number=_integer(frame, "EchoNumbers"),
            b_value=b[0] if b else None,
            temporal_position=_integer(frame, "TemporalPositionIdentifier"),
            contrast_phase=str(frame.get("ContrastBolusAgentPhase") or ""),
        )
        for frame, (orientation, spacing, echo, b) in zip(frames, columns, strict=True)
    ]


def _clustered(values: list[tuple[float, ...] | None], tolerance: float) -> list[tuple[float, ...] | None]:
    """Each value replaced by the rounded smallest one that it differs from by no more than the tolerance."""
    digits = max(0, round(-np.log10(tolerance)))
    seen: list[tuple[float, ...]] = []
    nearest: dict[tuple[float, ...], tuple[float, ...]] = {}
    for value in sorted({v for v in values if v is not None}):
        found = next((s for s in seen if max(abs(a - b) for a, b in zip(s, value, strict=True)) <= tolerance), None)
        if found is None:
            seen.append(found := value)
        nearest[value] = tuple(round(v, digits) + 0.0 for v in found)
    return [None if v is None else nearest[v] for v in values]


def b_value(frame: Frame) -> float | None:
    """The diffusion b-value in s/mm² (PS3.3 C.8.13.5.9), or what the big vendors' private elements say."""
    if (standard := frame.number_of("DiffusionBValue")) is not None:
        return standard
    for group, creator, element in _PRIVATE_B_VALUES:
        value = first_number(private_value_of(frame.instance, group, creator, element))
        if value is not None:
            return value % _GE_B_VALUE_OFFSET
    return None


def _separated(key: StackKey, frames: list[Frame]) -> list[tuple[StackKey, list[Frame]]]:
    """One stack, or several where frames are at the same position and an attribute tells them apart."""
    if not repeats_positions(frames):
        return [(key, frames)]
    for name, value_in in _SEPARATORS.items():
        groups = _grouped(frames, [value_in(f) for f in frames])
        if len(groups) > 1 and not any(repeats_positions(group) for group in groups.values()):
            return [(replace(key, separated_by=name, separated_value=value), group) for value, group in groups.items()]
    return [(key, frames)]


def repeats_positions(frames: Sequence[Frame]) -> bool:
    """Whether two of the frames are at one position along the normal."""
    distances = along_normal(frames)
    return distances is not None and bool((np.diff(np.sort(distances)) < POSITION_TOLERANCE).any())


def _gradient(frame: Frame) -> str:
    direction = frame.get("DiffusionGradientOrientation")
    for item in frame.get("DiffusionGradientDirectionSequence") or ():
        direction = value_of(item, "DiffusionGradientOrientation")
    return _clean(direction)


def _text_of(keyword: str) -> Callable[[Frame], str]:
    return lambda frame: _clean(frame.get(keyword))


_SEPARATORS: dict[str, Callable[[Frame], str]] = {
    "SeriesNumber": _text_of("SeriesNumber"),
    "DiffusionGradientOrientation": _gradient,
    "InversionTime": _text_of("InversionTime"),
    "TriggerTime": _text_of("TriggerTime"),
    "NominalCardiacTriggerDelayTime": _text_of("NominalCardiacTriggerDelayTime"),
    "FlipAngle": _text_of("FlipAngle"),
    "AcquisitionNumber": _text_of("AcquisitionNumber"),
    "AcquisitionTime": _text_of("AcquisitionTime"),
}


def _grouped(frames: list[Frame], keys: list[_K]) -> dict[_K, list[Frame]]:
    groups: dict[_K, list[Frame]] = defaultdict(list)
    for frame, key in zip(frames, keys, strict=True):
        groups[key].append(frame)
    return groups


def _clean(value: object) -> str:
    # The values of a multi-valued attribute may still hold the NULs that Postgres does not keep.
    return str(value).replace("\0", "").strip()


def _single(value: float | None) -> tuple[float, ...] | None:
    return None if value is None else (value,)


def _integer(frame: Frame, keyword: str) -> int | None:
    value = frame.number_of(keyword)
    return None if value is None else int(value)


def _image_type(frame: Frame) -> tuple[str, ...]:
    value = frame.get("ImageType")
    types = [value] if isinstance(value, str) else list(value or ())
    component = frame.get("ComplexImageComponent")
    return tuple(_clean(v).upper() for v in [*types, *([component] if component else [])])
