"""Files → drawn slices."""

from __future__ import annotations

import os
import signal
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import mr_instance
from pydicom import config
from pydicom.valuerep import validate_value

from pacs_cbir.dicom.rules import SiteRules
from pacs_cbir.embed.decode import Decoder, draw_series, draw_stack
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.errors import DecodingError


def test_a_stack_is_drawn_again_that_only_the_sites_rules_let_in(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        place = ["-120", "-120", str(6 * number)]
        ds = mr_instance(number=number, size=32, ImagePositionPatient=place, SeriesDescription="pilot study t2")
        ds.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    paths, wanted = sorted(tmp_path.iterdir()), Preprocessing(size=32)
    rules = SiteRules.model_validate({"rule": [{"sequence": "T2", "when": {"SeriesDescription": "pilot study*"}}]})
    [stack] = draw_series(paths, wanted, rules)
    assert stack.slices is not None
    assert draw_series(paths, wanted)[0].not_embedded == "not embedded: localiser"
    np.testing.assert_array_equal(draw_stack(paths, stack.separated_by, wanted).pixels, stack.slices.pixels)


def test_the_child_quotes_no_header(capfd: pytest.CaptureFixture[str]) -> None:
    with Decoder(60, 4096) as decoder:
        decoder.run(validate_value, "UI", "Doe^Jane", config.WARN)
    assert "Jane" not in capfd.readouterr().err


def test_a_child_that_could_not_be_started_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise BlockingIOError

    with Decoder(60, 4096) as decoder:
        child = decoder.run(os.getpid)
        with monkeypatch.context() as patched:
            patched.setattr(SpawnProcess, "start", refuse)
            os.kill(child, signal.SIGKILL)
            with pytest.raises(DecodingError, match=r"could not be started|died"):
                decoder.run(os.getpid)
            with pytest.raises(DecodingError, match="could not be started"):
                decoder.run(os.getpid)
        assert decoder.run(os.getpid) != child
