"""Pictures of real instances, where the shared data is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pacs_cbir.embed.picture import render_frame
from pacs_cbir.errors import DecodingError

DATA = Path(__file__).parents[4] / "shared/data/dicom"
SYNTAXES = sorted((DATA / "transfer-syntaxes").glob("*.dcm"))


@pytest.mark.skipif(not SYNTAXES, reason="the shared data is not here")
def test_one_image_is_one_picture_in_every_transfer_syntax() -> None:
    first, *others = (render_frame(path, 1).pixels for path in SYNTAXES)
    assert first.std() > 10
    assert len(others) >= 8
    for other in others:
        assert np.array_equal(first, other)


@pytest.mark.skipif(not (DATA / "enhanced-fo-dicom").is_dir(), reason="the shared data is not here")
def test_frames_of_a_multi_frame_instance_differ() -> None:
    (path,) = (DATA / "enhanced-fo-dicom").glob("*.dcm")
    first, second = render_frame(path, 1).pixels, render_frame(path, 2).pixels
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
    with pytest.raises(DecodingError, match="cannot be decoded"):
        render_frame(path, 10_000)


def test_what_is_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"nothing")
    with pytest.raises(DecodingError):
        render_frame(tmp_path / "x.dcm", 1)
