"""Files from outside → drawn stacks, in the decoder's child process; headers' claims are checked before they cost."""

from __future__ import annotations

import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pacs_cbir.dicom.instance import Instance, read_instance, seek_data_set
from pacs_cbir.dicom.rules import SiteRules
from pacs_cbir.dicom.sequence_header import Sequence as MrSequence
from pacs_cbir.dicom.volume import FrameReference, Volume
from pacs_cbir.embed.decode import DrawnStack, draw_each
from pacs_cbir.embed.preprocess import DISPLAY_AXES, MAX_SLICES, Preprocessing, draw_slices
from pacs_cbir.errors import InstanceError, NotAVolume, UnreadableUpload

MAX_PIXELS = 2**27
"""Of all DICOM files of an upload together: 512 slices of 512 × 512."""
MAX_INFLATED_BYTES = 2**29
"""Of one deflated data set."""
MAX_PICTURE_PIXELS = 2**25
MAX_PICTURE_ASPECT = 32
"""A strip that is longer than so many times its width is no slice, and smoothing it would take minutes."""

_HEAD_BYTES = 132
_PREFIX = slice(128, 132)
_PICTURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
_CHUNK = 2**20


@dataclass(frozen=True)
class OutsideStack:
    """One stack of an upload.

    Attributes:
        study_instance_uid, series_instance_uid: empty of a picture that is no DICOM.
        file: the number of its file in the upload, counted from 1; 0 where it may be of several.
    """

    study_instance_uid: str
    series_instance_uid: str
    file: int
    stack: DrawnStack


def format_of(path: Path, number: int) -> str:
    """DICOM, PNG or JPEG, by a file's first bytes.

    Args:
        number: of the file, for the error.

    Raises:
        UnreadableUpload: it is something else, or two of them at once.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    found = [name for signature, name in _PICTURES.items() if head.startswith(signature)]
    if head[_PREFIX] == b"DICM":
        found.append("DICOM")
    if len(found) != 1:
        # PS3.10 7.5: what two programs read differently was made to be.
        raise UnreadableUpload(
            f"file {number} is {' and '.join(found)} at once"
            if found
            else f"file {number} is no DICOM file (PS3.10), PNG or JPEG"
        )
    return found[0]


def draw_outside(
    paths: Sequence[Path], preprocessing: Preprocessing, rules: SiteRules, most: int
) -> list[OutsideStack]:
    """Draw what files show: DICOM as a worker draws stored series, other pictures one by one.

    Args:
        rules: the site's, of which headers are which sequence.
        most: pictures and stacks that may be drawn; their slices may be as many as those of one stack.

    Raises:
        UnreadableUpload: a file is damaged, or shows or claims too much; says which.
        DecodingError: pixel data of DICOM files that cannot be decoded.
    """
    found = []
    drawn = slices = 0
    for one in _drawn(paths, preprocessing, rules):
        found.append(one)
        if one.stack.slices is not None:
            drawn, slices = drawn + 1, slices + len(one.stack.slices.pixels)
        if drawn > most:
            raise UnreadableUpload(f"the files are more than {most} pictures and stacks; send fewer")
        if slices > MAX_SLICES:
            raise UnreadableUpload(f"more than {MAX_SLICES} slices would be drawn of the files; send fewer")
    return found


def _drawn(paths: Sequence[Path], preprocessing: Preprocessing, rules: SiteRules) -> Iterator[OutsideStack]:
    series: defaultdict[tuple[str, str], list[tuple[int, Path]]] = defaultdict(list)
    pictures, pixels = [], 0
    for number, path in enumerate(paths, start=1):
        if format_of(path, number) == "DICOM":
            instance = _checked(path, number)
            pixels += _pixels_of(instance)
            series[instance.study_instance_uid, instance.series_instance_uid].append((number, path))
        else:
            pictures.append((number, path))
    if pixels > MAX_PIXELS:
        raise UnreadableUpload(f"the files claim {pixels} pixels, and {MAX_PIXELS} are drawn at most")
    for number, path in pictures:
        yield OutsideStack("", "", number, _draw_picture(path, number, preprocessing))
    for (study, uid), members in series.items():
        file = members[0][0] if len(members) == 1 else 0
        for stack in draw_each([path for _, path in members], preprocessing, rules):
            yield OutsideStack(study, uid, file, stack)


def _checked(path: Path, number: int) -> Instance:
    try:
        instance = read_instance(path)
    except InstanceError as error:
        raise UnreadableUpload(f"file {number} is no DICOM instance: {error}") from error
    if instance.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        _check_inflated(path, number)
    return instance


def _pixels_of(instance: Instance) -> int:
    rows, columns, frames = instance.rows or 0, instance.columns or 0, instance.number_of_frames or 1
    return max(rows, 0) * max(columns, 0) * max(frames, 1)


def _check_inflated(path: Path, number: int) -> None:
    """Inflate once without keeping anything: pydicom keeps all of it, however much it is."""
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        seek_data_set(file)
        while not inflater.eof and (chunk := inflater.unconsumed_tail or file.read(_CHUNK)):
            try:
                inflated += len(inflater.decompress(chunk, _CHUNK))
            except zlib.error as error:
                raise UnreadableUpload(f"file {number}: its deflated data set is damaged") from error
            if inflated > MAX_INFLATED_BYTES:
                raise UnreadableUpload(f"file {number} inflates to more than {MAX_INFLATED_BYTES} bytes")


def _draw_picture(path: Path, number: int, preprocessing: Preprocessing) -> DrawnStack:
    grey = _grey(path, number)
    # Nothing says how large a pixel is: the whole picture is taken for the field of view.
    pixel_mm = preprocessing.field_of_view_mm / max(grey.shape)
    plane = preprocessing.resliced_plane
    affine = np.eye(4)
    affine[:3, :3] = DISPLAY_AXES[plane].T * (preprocessing.slice_spacing_mm, pixel_mm, pixel_mm)
    try:
        slices = draw_slices(Volume(grey[None], affine, plane, (FrameReference("", number),)), preprocessing)
    except NotAVolume as error:
        raise UnreadableUpload(f"file {number}: {error}") from error
    return DrawnStack(MrSequence.UNKNOWN.value, {}, "", {}, (), slices, None)


def _check_size(width: int, height: int, number: int) -> None:
    if width * height > MAX_PICTURE_PIXELS:
        raise UnreadableUpload(f"file {number} has more than {MAX_PICTURE_PIXELS} pixels")
    if max(width, height) > MAX_PICTURE_ASPECT * min(width, height):
        raise UnreadableUpload(f"file {number} is a strip of {width} × {height} pixels, and no slice")


def _grey(path: Path, number: int) -> npt.NDArray[np.float32]:
    """A picture's grey values, transparent parts black, colours by their luminance (ITU-R BT.601)."""
    try:
        with warnings.catch_warnings():
            # Its size is looked at here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture: Image.Image = Image.open(path, formats=tuple(_PICTURES.values()))
            _check_size(*picture.size, number)
            picture = ImageOps.exif_transpose(picture)
    except (MemoryError, UnreadableUpload):
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableUpload(f"file {number} has more than {MAX_PICTURE_PIXELS} pixels") from error
    except Exception as error:
        # Pillow raises what its plugins do.
        raise UnreadableUpload(f"file {number} is a damaged picture ({type(error).__name__})") from error
    if not picture.mode.startswith(("I", "F")):
        shown = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", shown.size, "black"), shown).convert("L")
    return np.asarray(picture, np.float32)
