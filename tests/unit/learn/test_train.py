from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painted_stacks import painted_stacks
from torchvision.models import resnet18
from typer.testing import CliRunner
from untrained import save_untrained

from pacs_cbir.cli import app
from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.checkpoint import load_checkpoint
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.embed.network import build_network
from pacs_cbir.errors import RecipeError
from pacs_cbir.learn import calibrate as calibration
from pacs_cbir.learn import drawn_masks as masks
from pacs_cbir.learn import train as training
from pacs_cbir.learn.baselines import EncoderMethod
from pacs_cbir.learn.order import train_and_calibrate
from pacs_cbir.learn.recipe import Recipe, read_recipe
from pacs_cbir.learn.stacks import Stack
from pacs_cbir.learn.train import train

PLAIN: dict[str, Any] = {
    "size": 32,
    "epochs": 1,
    "groups_a_batch": 3,
    "architecture": {"appearance": 16, "weights": {"appearance": 1}},
}
WHOLE: dict[str, Any] = {
    **PLAIN,
    "architecture": {
        "appearance": 16,
        "lesion_grid": 4,
        "shape_landmarks": 8,
        "grey_levels": 8,
        "weights": {"appearance": 1, "lesion": 1, "shape": 1, "grey": 1},
    },
    "lesion": 1.0,
    "slices": "tumour",
}
LESION_ALONE = Architecture(lesion_grid=4, weights={"lesion": 1})
SHAKEN = {"flip": True, "turn": 0.2, "shift": 0.1, "scale": 0.1, "bend": 0.02, "gamma": 0.2, "noise": 0.02}


def recipe(base: dict[str, Any], **changes: object) -> Recipe:
    return Recipe.model_validate({**base, **changes})


@pytest.mark.parametrize(
    "settings",
    [
        recipe(PLAIN, positives="picture", augmentation=SHAKEN),
        recipe(PLAIN, memory=12, slices="all"),
        recipe(PLAIN, positives="label", groups_a_batch=2, reconstruction=1.0),
        recipe(PLAIN, slices="all", slices_a_view=3, pooling="mean"),
        recipe(WHOLE, positives="none"),
        recipe(WHOLE, positives="relevance", augmentation=SHAKEN),
        recipe(WHOLE, positives="none", size=64, coarse_epochs=1, labels=0.3),
    ],
    ids=["SimCLR", "memory", "label + reconstruction", "pooled", "lesion", "relevance", "coarse, labels"],
)
def test_every_kind_of_recipe_trains_and_the_same_seed_gives_the_same_weights(settings: Recipe, tmp_path: Path) -> None:
    stacks = painted_stacks(4)
    first, again, other = (
        train(settings, stacks, seed=seed, out=tmp_path / name)[""].weights
        for seed, name in ((1, "first"), (1, "again"), (2, "other"))
    )
    for name, weight in first.items():
        np.testing.assert_array_equal(weight, again[name], err_msg=name)
    assert not np.array_equal(first["trunk.conv1.weight"], other["trunk.conv1.weight"])
    assert not list(tmp_path.glob("*.state*"))


@pytest.mark.slow
def test_an_encoder_teaches_itself_where_no_mask_is_known(tmp_path: Path) -> None:
    known = painted_stacks(8, size=64)
    first = recipe(WHOLE, positives="none", size=64, epochs=40, learning_rate=3e-3, augmentation={"flip": True})
    train(first, known, seed=1, out=tmp_path / "first")
    alone = [replace(stack, masks=None, best=None, truth=None) for stack in painted_stacks(8, size=64, first=20)]
    second = recipe(WHOLE, positives="none", size=64, init="pretrained", masks="drawn")
    taught = train(second, alone, seed=1, out=tmp_path / "second", weights=tmp_path / "first.safetensors")[""]
    assert "masks drawn" in taught.card.training.method
    start = load_checkpoint(tmp_path / "first.safetensors").weights
    assert not np.array_equal(taught.weights["head.coarse.weight"], start["head.coarse.weight"])

    torch.save(resnet18(weights=None).state_dict(), tmp_path / "plain.pth")
    with pytest.raises(RecipeError, match="no head"):
        train(second, alone, seed=1, out=tmp_path / "third", weights=tmp_path / "plain.pth")
    with pytest.raises(ValueError, match="goes with a lesion loss"):
        recipe(PLAIN, masks="drawn")


@pytest.mark.slow
def test_a_kill_loses_no_drawn_mask_and_the_same_command_says_from_where_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    save_untrained(tmp_path / "start.safetensors", LESION_ALONE, size=32)
    settings = recipe(WHOLE, architecture=LESION_ALONE, positives="none", init="pretrained", masks="drawn", epochs=3)
    stacks = [replace(stack, masks=None, best=None, truth=None) for stack in painted_stacks(4)]
    out, drawn = tmp_path / "own", tmp_path / "own.drawn"

    def order(name: str = "own") -> dict[str, np.ndarray[Any, Any]]:
        weights = tmp_path / "start.safetensors"
        return dict(train(settings, stacks, seed=1, out=tmp_path / name, weights=weights)[""].weights)

    whole = order("whole")
    assert "drawing masks, patients" in capsys.readouterr().err
    assert not (tmp_path / "whole.drawn").exists()

    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    _interrupted_at_step(1, monkeypatch, order)  # before the first epoch is saved
    assert len(list(drawn.iterdir())) == 4
    with monkeypatch.context() as patched:
        patched.setattr(masks, "_draw", lambda *_: pytest.fail("drawn again"))
        steps = _interrupted_at_step(5, patched, order)
        assert out.with_name("own.state").exists()
        capsys.readouterr()
        resumed = order()
    assert f"own  going on from epoch {steps} of 3" in capsys.readouterr().err
    assert not drawn.exists()
    for name, weight in whole.items():
        np.testing.assert_array_equal(weight, resumed[name], err_msg=name)


def _interrupted_at_step(step: int, monkeypatch: pytest.MonkeyPatch, order: Callable[[], object]) -> int:
    """Order a training that is interrupted in a step, from 1; the number of epochs that were saved."""
    taken = 0

    def counted(*arguments: Any, **options: Any) -> float:
        nonlocal taken
        taken += 1
        if taken == step:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    real = training._step
    with monkeypatch.context() as patched:
        patched.setattr(training, "_step", counted)
        saved: list[int] = []
        save = training._save
        patched.setattr(training, "_save", lambda path, state: (saved.append(state["finished"]), save(path, state)))
        with pytest.raises(KeyboardInterrupt):
            order()
    return max(saved, default=0)


def test_appearance_is_left_out_where_no_label_teaches_it(tmp_path: Path) -> None:
    settings = recipe(WHOLE, positives="none", labels=1.0)
    taught = train(settings, painted_stacks(4), seed=1, out=tmp_path / "taught")[""]
    assert "appearance" in taught.card.architecture.sizes
    unknown = [replace(stack, label=None) for stack in painted_stacks(4)]
    untaught = train(settings, unknown, seed=1, out=tmp_path / "untaught")[""]
    assert set(untaught.card.architecture.sizes) == set(taught.card.architecture.sizes) - {"appearance"}


def test_training_moves_weights_away_from_where_they_began(tmp_path: Path) -> None:
    stacks = painted_stacks(4)
    began, trained = (
        train(recipe(WHOLE, positives="none", epochs=epochs), stacks, seed=1, out=tmp_path / f"e{epochs}")[""].weights
        for epochs in (0, 1)
    )
    assert not np.array_equal(began["head.fine.weight"], trained["head.fine.weight"])


RUN = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from painted_stacks import painted_stacks
from pacs_cbir.learn import train as training
torch.set_num_threads(1)
training.SAVE_SECONDS = 0.0
training.train(training.Recipe.model_validate_json({recipe!r}), painted_stacks(4), seed=5, out=Path(sys.argv[1]))
"""


def _start(out: Path, settings: Recipe) -> subprocess.Popen[bytes]:
    code = RUN.format(tests=str(Path(__file__).parents[2]), recipe=settings.model_dump_json())
    return subprocess.Popen([sys.executable, "-c", code, str(out)], stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = recipe(WHOLE, positives="patient", memory=12, reconstruction=1.0, augmentation=SHAKEN, epochs=8)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert _start(whole, settings).wait(timeout=240) == 0

    state = tmp_path / "killed.state"
    process = _start(killed, settings)
    deadline = time.monotonic() + 120
    while not state.exists() or torch.load(state, weights_only=True)["finished"] < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = torch.load(state, weights_only=True)["finished"]
    assert 3 <= kept < settings.epochs
    assert not killed.with_suffix(".safetensors").exists()

    assert _start(killed, settings).wait(timeout=240) == 0
    assert killed.with_suffix(".safetensors").read_bytes() == whole.with_suffix(".safetensors").read_bytes()
    assert not state.exists()


def test_a_finished_training_is_taken_as_it_is_and_never_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks, out = painted_stacks(4), tmp_path / "run"
    first = train(recipe(PLAIN), stacks, seed=1, out=out)[""]
    before = out.with_suffix(".safetensors").read_bytes()
    others: list[tuple[Recipe, list[Stack], int]] = [
        (recipe(PLAIN), stacks, 2),
        (recipe(PLAIN, temperature=0.2), stacks, 1),
        (recipe(PLAIN), painted_stacks(5), 1),
    ]
    for settings, known, seed in others:
        with pytest.raises(RecipeError, match=r"run\.safetensors is there, of another training.*name another OUT"):
            train(settings, known, seed=seed, out=out)
    assert out.with_suffix(".safetensors").read_bytes() == before
    monkeypatch.setattr(training, "_step", lambda *_, **__: pytest.fail("trained again"))
    assert train(recipe(PLAIN), stacks, seed=1, out=out)[""].card == first.card


def test_a_kill_in_the_calibration_loses_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def order() -> None:
        train_and_calibrate(recipe(PLAIN), painted_stacks(4), seed=1, out=tmp_path / "run", weights=None)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(calibration, "unrelated_similarities", killed)
        with pytest.raises(KeyboardInterrupt):
            order()
    monkeypatch.setattr(training, "_step", lambda *_, **__: pytest.fail("trained again"))
    order()
    assert set(load_checkpoint(tmp_path / "run.safetensors").card.unrelated) == {"FLAIR", "T1"}


HOLD = """
import sys, fasteners
lock = fasteners.InterProcessLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
input()
"""


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    lock = tmp_path / "results" / "runs" / ".lock"
    lock.parent.mkdir(parents=True)

    def order() -> None:
        train_and_calibrate(recipe(PLAIN), painted_stacks(4), seed=1, out=tmp_path / "run", weights=None)

    def measure() -> None:
        arguments = ["experiment", "smoke", "--results", str(tmp_path / "results")]
        CliRunner().invoke(app, arguments, catch_exceptions=False)

    for path, run in ((tmp_path / ".run.lock", order), (lock, measure)):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], text=True, **pipes) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(RecipeError, match="another run writes"):
                run()
            other.communicate("")
    assert not (tmp_path / "run.safetensors").exists()


def test_a_state_of_another_run_is_not_thrown_away(tmp_path: Path) -> None:
    stacks, settings, state = painted_stacks(4), recipe(PLAIN), tmp_path / "run.state"
    torch.save({"identity": "another", "finished": 1}, state)
    before = state.read_bytes()
    with pytest.raises(RecipeError, match=r"run\.state is of another training.*remove it .* another OUT"):
        train(settings, stacks, seed=1, out=tmp_path / "run")
    assert state.read_bytes() == before
    expected = train(settings, stacks, seed=1, out=tmp_path / "expected")[""]
    # An experiment names OUT by the run, and must not be stuck after an update or on another device.
    found = train(settings, stacks, seed=1, out=tmp_path / "run", named_by_run=True)[""]
    assert found.card.weights_sha256 == expected.card.weights_sha256


@pytest.mark.parametrize(
    ("sequence", "complaint"),
    [("t1", "T1 and t1 would be one file"), ("T2*", r"t2\*"), ("T1/T2", "t1/t2"), ("zz é", "zz é")],
)
def test_all_networks_can_be_written_before_one_is_trained(sequence: str, complaint: str, tmp_path: Path) -> None:
    stacks = painted_stacks(4, sequences=("FLAIR", "T1", sequence))
    with pytest.raises(RecipeError, match=complaint):
        train(recipe(PLAIN, a_network_a_sequence=True), stacks, seed=1, out=tmp_path / "own")
    assert not list(tmp_path.iterdir())


def test_training_brings_the_sequences_of_a_patient_together(tmp_path: Path) -> None:
    stacks = painted_stacks(6)
    one, two = ([s for s in stacks if s.sequence == sequence] for sequence in ("T1", "FLAIR"))

    def margin(epochs: int) -> float:
        settings = recipe(PLAIN, epochs=epochs, groups_a_batch=6, learning_rate=2e-3, draws_a_stack=4)
        checkpoint = train(settings, stacks, seed=3, out=tmp_path / f"e{epochs}")[""]
        alike = EncoderMethod("it", Encoder(checkpoint, "cpu")).similarities(one, two)
        return float(np.diag(alike).mean() - alike[~np.eye(6, dtype=bool)].mean())

    assert margin(10) > margin(0) + 0.2


def test_the_lesion_head_learns_where_lesions_are(tmp_path: Path) -> None:
    stacks = painted_stacks(8)
    settings = recipe(WHOLE, positives="none", epochs=8, learning_rate=3e-3, draws_a_stack=3)
    checkpoint = train(settings, stacks, seed=0, out=tmp_path / "lesions")[""]
    network = build_network(checkpoint.card.architecture).eval()
    network.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in checkpoint.weights.items()})
    seen = painted_stacks(6, first=100)
    images = torch.from_numpy(np.stack([s.pixels[2] for s in seen])).float()[:, None]
    masks = np.stack([s.masks[2] for s in seen if s.masks is not None])
    with torch.inference_mode():
        lesion = network(images).lesion
    assert lesion is not None
    drawn = torch.nn.functional.interpolate(lesion, scale_factor=2, mode="bilinear")[:, 0].numpy() > 0
    assert 2 * (drawn & masks).sum() / (drawn.sum() + masks.sum()) > 0.6


def test_one_network_for_each_sequence(tmp_path: Path) -> None:
    settings = recipe(PLAIN, a_network_a_sequence=True)
    trained = train(settings, painted_stacks(4), seed=0, out=tmp_path / "own")
    assert sorted(trained) == ["FLAIR", "T1"]
    assert load_checkpoint(tmp_path / "own-t1.safetensors").card.domain.sequences == ("T1",)
    assert trained["T1"].card.weights_sha256 != trained["FLAIR"].card.weights_sha256


def test_pretrained_weights_are_those_of_the_file_with_its_colours_summed(tmp_path: Path) -> None:
    torch.manual_seed(9)
    theirs = {name: w.half() if w.is_floating_point() else w for name, w in resnet18().state_dict().items()}
    torch.save(theirs, tmp_path / "theirs.pth")
    settings = recipe({}, size=32, epochs=0, init="pretrained")
    ours = train(settings, painted_stacks(4), seed=0, out=tmp_path / "ours", weights=tmp_path / "theirs.pth")[""]
    np.testing.assert_allclose(
        ours.weights["trunk.conv1.weight"], theirs["conv1.weight"].float().sum(dim=1, keepdim=True), atol=1e-3
    )
    last = "layer4.1.conv2.weight"
    np.testing.assert_array_equal(ours.weights[f"trunk.{last}"], theirs[last].numpy())
    # Without training the embedding is the pooled features, which no projection has mixed.
    np.testing.assert_array_equal(ours.weights["appearance.weight"], np.eye(512))
    again = recipe(settings.model_dump())
    of_ours = train(again, painted_stacks(4), seed=7, out=tmp_path / "b", weights=tmp_path / "ours.safetensors")[""]
    assert of_ours.card.weights_sha256 == ours.card.weights_sha256


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    settings = recipe(PLAIN, init="pretrained")
    with pytest.raises(RecipeError, match="no ResNet18"):
        train(settings, painted_stacks(4), seed=0, out=tmp_path / "x", weights=tmp_path / "other.pth")
    (tmp_path / "none.pth").write_bytes(b"no weights at all")
    for name in ("none.pth", "missing.pth"):
        with pytest.raises(RecipeError, match="--weights"):
            train(settings, painted_stacks(4), seed=0, out=tmp_path / "x", weights=tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "patients", "masks", "complaint"),
    [
        (recipe(PLAIN), 1, True, "two of them"),
        (recipe(PLAIN), 4, False, 'slices = "all"'),
        (recipe(WHOLE, positives="none"), 4, False, "shape_landmarks"),
    ],
)
def test_stacks_that_a_recipe_cannot_be_trained_on_are_refused(
    settings: Recipe, patients: int, masks: bool, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=complaint):
        train(settings, painted_stacks(patients, masks=masks), seed=0, out=tmp_path / "x")


def test_a_name_that_no_card_can_have_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Our Hospital"):
        train(recipe(PLAIN, epochs=1000), painted_stacks(4), seed=0, out=tmp_path / "Our Hospital")


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="learning_rate"):
        train(recipe(PLAIN, temperature=1e-38), painted_stacks(4), seed=0, out=tmp_path / "x")


def test_the_card_says_how_it_was_trained(tmp_path: Path) -> None:
    settings = recipe(PLAIN, data="painted", licences=["CC0"], augmentation={"turn": 0.2})
    train(settings, painted_stacks(4), seed=6, out=tmp_path / "it")
    card = load_checkpoint(tmp_path / "it.safetensors").card
    assert (card.training.patients, card.training.epochs, card.training.seed) == (4, 1, 6)
    assert (card.training.data, card.training.licences) == ("painted", ("CC0",))
    assert card.training.settings["augmentation.turn"] == 0.2
    assert card.training.settings["temperature"] == settings.temperature
    assert "positives patient" in card.training.method
    assert card.preprocessing.size == 32
    assert card.domain.sequences == ("FLAIR", "T1")


def test_the_card_claims_the_body_parts_that_are_known_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = painted_stacks(4)
    shown = [replace(unknown[0], body_part="KNEE"), *(replace(stack, body_part="BRAIN") for stack in unknown[1:-1])]
    for name, stacks, claimed in (("known", [*shown, unknown[-1]], ("BRAIN", "KNEE")), ("unknown", unknown, ())):
        train_and_calibrate(recipe(PLAIN), stacks, seed=6, out=tmp_path / name, weights=None)
        assert load_checkpoint(tmp_path / f"{name}.safetensors").card.domain.body_parts == claimed
        assert ("column body_part" in capsys.readouterr().err) is (claimed == ())


def test_other_body_parts_are_another_training(tmp_path: Path) -> None:
    stacks = painted_stacks(4)
    train(recipe(PLAIN), stacks, seed=6, out=tmp_path / "it")
    with pytest.raises(RecipeError, match="of another training"):
        train(recipe(PLAIN), [replace(one, body_part="BRAIN") for one in stacks], seed=6, out=tmp_path / "it")


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    for content in (b"not a state", b"\x80\x02", b"junk junk junk", b"\x80\x02X\x01", b"\x80\x02G\x00"):
        (tmp_path / "own.state").write_bytes(content)
        with pytest.raises(RecipeError, match=r"own\.state cannot be read .*remove it"):
            train(recipe(PLAIN), painted_stacks(4), seed=1, out=tmp_path / "own")


@pytest.mark.parametrize("name", ["ours", "unlabelled"])
def test_a_sites_own_training_is_not_only_for_measuring(name: str) -> None:
    purpose = read_recipe(Path(name)).purpose
    assert "a site's own studies" in purpose
    assert "for measuring" not in purpose


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    theirs = resnet18().state_dict()
    theirs["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(theirs, tmp_path / "w.pth")
    settings, weights = recipe(PLAIN, init="pretrained"), tmp_path / "w.pth"
    with pytest.raises(RecipeError, match=r"w\.pth holds weights that are not finite, trunk\.layer1\.0\.conv1\.weight"):
        train(settings, painted_stacks(4), seed=1, out=tmp_path / "own", weights=weights)


@pytest.mark.parametrize(
    ("saved", "said"), [([1], "holds nothing under names: remove it"), ({"a": 1}, "is no saved training: remove it")]
)
def test_what_is_no_saved_training_is_named(saved: object, said: str, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "own.state")
    with pytest.raises(RecipeError, match=said):
        train(recipe(PLAIN), painted_stacks(4), seed=1, out=tmp_path / "own")


@pytest.mark.parametrize("content", [b"", b"hello world", b"PK\x03\x04"])
def test_files_that_hold_no_weights_are_named(content: bytes, tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(content)
    with pytest.raises(RecipeError, match=r"w\.pth cannot be read .*--weights"):
        train(recipe(PLAIN, init="pretrained"), painted_stacks(4), seed=1, out=tmp_path / "own", weights=weights)


def test_the_card_tells_whom_it_was_trained_on_and_hides_their_names(tmp_path: Path) -> None:
    everybody = painted_stacks(6)
    seen, other = everybody[:8], [stack.patient for stack in everybody[8:]]
    first = train(recipe(PLAIN), seen, seed=6, out=tmp_path / "first")[""].card
    names = {stack.patient for stack in seen}
    assert first.training.trained_on([*names, *other]) == names
    assert load_checkpoint(tmp_path / "first.safetensors").card == first
    assert not any(name in (tmp_path / "first.json").read_text() for name in names)
    again = train(recipe(PLAIN), seen, seed=6, out=tmp_path / "again")[""].card
    assert again.training.patient_digests == first.training.patient_digests

    untrained = train(recipe(PLAIN, epochs=0), seen, seed=6, out=tmp_path / "untrained")[""].card
    assert untrained.training.trained_on(names) == set()


def test_the_card_tells_whom_the_weights_were_trained_on_that_it_started_from(tmp_path: Path) -> None:
    first = train(recipe(PLAIN), painted_stacks(3), seed=6, out=tmp_path / "first")[""].card
    start = tmp_path / "first.safetensors"
    settings = recipe(PLAIN, init="pretrained")
    second = train(settings, painted_stacks(3, first=3), seed=6, out=tmp_path / "second", weights=start)[""].card
    assert second.training.trained_on([f"p{n:03d}" for n in range(9)]) == {f"p{n:03d}" for n in range(6)}
    assert second.training.method.startswith(f"{first.training.method}; then 1 epochs, init pretrained")
    shipped = recipe({"epochs": 0, "init": "shipped"}, architecture=PLAIN["architecture"])
    of_shipped = train(shipped, painted_stacks(3), seed=6, out=tmp_path / "third")[""].card
    assert of_shipped.training.trained_on(["p000", "figshare-0"]) == {"figshare-0"}


def test_who_was_trained_on_stays_unknown_after_more_training(tmp_path: Path) -> None:
    train(recipe(PLAIN), painted_stacks(3, first=9), seed=6, out=tmp_path / "first")
    card = json.loads((tmp_path / "first.json").read_text())
    card["training"]["patient_digests"] = None
    (tmp_path / "first.json").write_text(json.dumps(card))
    settings, start = recipe(PLAIN, init="pretrained"), tmp_path / "first.safetensors"
    trained = train(settings, painted_stacks(3), seed=6, out=tmp_path / "more", weights=start)[""].card
    assert trained.training.trained_on(["p000", "p009"]) is None
    saved = json.loads((tmp_path / "more.json").read_text())
    assert saved["training"]["patient_digests"] is None
