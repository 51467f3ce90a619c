"""Which stacks are queries, what they are ranked among, and what is made of the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from lesions import disc, lesion_stack

from pacs_cbir.embed.checkpoint import default_checkpoint_path, load_checkpoint
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.errors import NotMeasurable
from pacs_cbir.learn.baselines import EncoderMethod, Floats, GreyHistogram, OracleIou, OracleIouHistogram, RandomOrder
from pacs_cbir.learn.comparison import Robustness
from pacs_cbir.learn.labelled import LabelledResult
from pacs_cbir.learn.metrics import ndcg
from pacs_cbir.learn.protocols import (
    labelled,
    merge,
    merge_labelled,
    merge_robustness,
    paired,
    poster,
    robustness,
    service,
)
from pacs_cbir.learn.relevance import gfd_d95, relevance
from pacs_cbir.learn.results import Result, small_galleries
from pacs_cbir.learn.stacks import Stack


def cohort(seed: int, patients: int = 24, sequences: Sequence[str] = ("FLAIR", "T1")) -> list[Stack]:
    """One lesion a patient, shown in every sequence, at a level of its own in each."""
    rng = np.random.default_rng(seed)
    stacks = []
    for number in range(patients):
        row, column = rng.uniform(45, 80, 2)
        rows, columns = np.ogrid[:128, :128]
        lesion = np.hypot((rows - row) / rng.uniform(5, 15), (columns - column) / rng.uniform(5, 15)) <= 1
        stacks += [
            lesion_stack(f"{seed}.{number}", lesion, sequence=sequence, grey=rng.uniform(0.1, 1), slices=3)
            for sequence in sequences
        ]
    return stacks


@dataclass(frozen=True)
class Given:
    """Ranks by a table of patients."""

    table: dict[tuple[str, str], float]
    name: str = "given"

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        return np.array([[self.table.get((q.patient, g.patient), 0.0) for g in gallery] for q in queries])

    series_similarities = similarities


def of(stacks: Sequence[Stack], sequence: str) -> list[Stack]:
    return [stack for stack in stacks if stack.sequence == sequence]


def test_figures_are_means_over_sequences_of_other_patients_of_that_sequence() -> None:
    stacks = [stack for stack in cohort(1) if stack.patient not in {"1.0", "1.1"} or stack.sequence == "T1"]
    d95 = gfd_d95(stacks)
    found = poster(GreyHistogram(), stacks, d95)
    means = {}
    for sequence in ("FLAIR", "T1"):
        alike = of(stacks, sequence)
        known, allowed = relevance(alike, alike, d95), ~np.eye(len(alike), dtype=bool)
        means[sequence] = [ndcg(known.histogram, known.mean, allowed, n).mean() for n in (5, 10, 20)]
        assert found.by_sequence[sequence].ndcg5 == pytest.approx(means[sequence][0])
        assert found.by_sequence[sequence].queries == len(alike)
        random = ndcg(np.zeros_like(known.iou), known.mean, allowed, 5).mean()
        assert found.by_sequence[sequence].skill5 == pytest.approx((means[sequence][0] - random) / (1 - random))
    assert [found.ndcg5, found.ndcg10, found.ndcg20] == pytest.approx(np.mean(list(means.values()), axis=0))
    low, high = found.interval
    assert low is not None
    assert high is not None
    assert found.ndcg5 is not None
    assert low < found.ndcg5 < high
    assert found.random5 == pytest.approx(poster(RandomOrder(), stacks, d95).ndcg5)
    assert poster(RandomOrder(), stacks, d95).skill5 == pytest.approx(0, abs=1e-9)
    assert "chosen with the lesion's mask" in found.protocol
    assert len(found.queries) == len(stacks)


def test_a_patients_other_studies_are_not_in_the_gallery() -> None:
    stacks = cohort(2, 4, ["FLAIR"])
    twin = replace(stacks[0], study="another study")
    without = poster(OracleIou(), stacks, 2.0)
    found = poster(OracleIou(), [*stacks, twin], 2.0)
    assert found.queries[0].ndcg5 == pytest.approx(without.queries[0].ndcg5)
    assert found.queries[-1].ndcg5 == pytest.approx(without.queries[0].ndcg5)
    with_a_stranger = poster(OracleIou(), [*stacks, replace(twin, patient="x")], 2.0)
    assert with_a_stranger.queries[0].ndcg10 != pytest.approx(without.queries[0].ndcg10)


def test_what_cannot_be_measured_is_left_out_and_counted() -> None:
    """Two lesions that touch no other: their IoU has no ideal, the relevance has one."""
    lonely = [lesion_stack("p", disc(4, 20, 64)), lesion_stack("q", disc(4, 110, 64))]
    middle = [lesion_stack(str(k), disc(4 + k), grey=0.4 + 0.1 * k) for k in range(6)]
    stacks = [*middle, *lonely, lesion_stack("blind"), lesion_stack("alone", disc(5), sequence="T2")]
    found = poster(GreyHistogram(), stacks, 2.0)
    assert found.left_out == {
        "stacks without mask": 1,
        "queries without relevant stacks": 1,
        "queries with a gallery of 5 or fewer": 1,
        "queries with a gallery of 10 or fewer": 9,
        "queries with a gallery of 20 or fewer": 9,
    }
    assert found.by_component["iou"].left_out == 3
    assert found.by_component["iou"].queries == 6
    assert found.by_component["histogram"].left_out == 1
    assert found.by_sequence["T2"].ndcg5 is None
    with pytest.raises(NotMeasurable, match="no stack has a lesion mask"):
        poster(GreyHistogram(), [lesion_stack("blind")], 2.0)


def test_queries_whose_gallery_is_not_larger_than_n_are_left_out_of_ndcg_at_n() -> None:
    """11 of FLAIR, each ranked over 10, and 4 of T1: of those nothing is measured, of no figure but nDCG@5 of FLAIR."""
    stacks = [*cohort(13, 11, ["FLAIR"]), *cohort(14, 4, ["T1"])]
    grey, chance = (poster(method, stacks, 2.0) for method in (GreyHistogram(), RandomOrder()))
    assert grey.ndcg5 == pytest.approx(poster(GreyHistogram(), of(stacks, "FLAIR"), 2.0).ndcg5)
    assert (grey.by_sequence["FLAIR"].queries, grey.by_sequence["FLAIR"].ndcg5) == (11, grey.ndcg5)
    assert (grey.by_sequence["T1"].queries, grey.by_sequence["T1"].ndcg5) == (0, None)
    assert (grey.by_component["iou"].queries, grey.by_component["iou"].by_sequence["T1"]) == (11, None)
    assert (grey.ndcg10, grey.ndcg20) == (None, None)
    assert grey.left_out["queries with a gallery of 5 or fewer"] == 4
    assert grey.left_out["queries with a gallery of 10 or fewer"] == 15
    assert str(small_galleries(grey)).startswith("of 15 queries left out of nDCG@5 4, nDCG@10 15, nDCG@20 15: their")
    difference = paired(grey, chance)
    assert (difference.by_sequence["T1"].ndcg5, difference.by_sequence["FLAIR"].ndcg5) == (None, difference.ndcg5)
    nothing = poster(GreyHistogram(), of(stacks, "T1"), 2.0)
    assert (nothing.ndcg5, nothing.skill5, nothing.interval) == (None, None, (None, None))
    assert small_galleries(poster(GreyHistogram(), cohort(15, 22), 2.0)) is None


def test_components_are_measured_each() -> None:
    stacks = cohort(4)
    found = poster(OracleIou(), stacks, gfd_d95(stacks))
    assert set(found.by_component) == {"iou", "histogram", "gfd"}
    assert found.by_component["iou"].ndcg5 == pytest.approx(1)
    assert found.by_component["iou"].skill5 == pytest.approx(1)
    assert found.by_component["iou"].by_sequence == pytest.approx({"FLAIR": 1.0, "T1": 1.0})
    assert found.by_component["histogram"].ndcg5 is not None
    assert found.by_component["histogram"].ndcg5 < 1


def test_simulated_lesions_are_measured_by_their_true_parameters() -> None:
    stacks = [
        replace(
            stack,
            parameters={f"place_{axis}_mm": float(k) for axis in "xyz"} | {"radius_mm": 5.0 + k, "enhancement": 0.0},
        )
        for k, stack in enumerate(cohort(5, 7, ["FLAIR"]))
    ]
    near = {(a.patient, b.patient): -abs(i - j) for i, a in enumerate(stacks) for j, b in enumerate(stacks)}
    found = poster(Given(near), stacks, 2.0)
    assert found.by_component["place"].ndcg5 == pytest.approx(1)
    assert found.by_component["enhancement"].random5 == pytest.approx(1)
    assert found.by_component["enhancement"].skill5 is None
    assert found.by_component["size"].ndcg5 == pytest.approx(1, abs=0.05)


def test_folds_and_seeds_merge() -> None:
    one, two = cohort(6), cohort(7, 7)
    d95 = gfd_d95([*one, *two])
    parts = [
        poster(GreyHistogram(), stacks, d95, fold=fold, seed=seed)
        for fold, stacks in (("0", [*one, lesion_stack("blind")]), ("1", two))
        for seed in (0, 1)
    ]
    found = merge(parts)
    assert found.ndcg5 == pytest.approx(np.mean([part.ndcg5 for part in parts]))
    assert found.by_sequence["T1"].ndcg5 == pytest.approx(np.mean([part.by_sequence["T1"].ndcg5 for part in parts]))
    assert found.left_out["stacks without mask"] == 1
    assert merge([merge(parts[:2]), merge(parts[2:])]) == found
    once = merge([parts[0], parts[2]])
    assert found.interval == pytest.approx(once.interval)
    assert Result.model_validate_json(found.model_dump_json()) == found
    with pytest.raises(NotMeasurable, match="twice"):
        merge([parts[0], parts[0]])
    with pytest.raises(NotMeasurable, match="several rows"):
        merge([parts[0], poster(RandomOrder(), two, d95, fold="1")])
    with pytest.raises(NotMeasurable, match="several rows"):
        merge([parts[0], service(GreyHistogram(), two, d95, fold="1")])


def test_differences_are_paired() -> None:
    stacks = cohort(8, 30)
    d95 = gfd_d95(stacks)
    better, worse = (poster(row, stacks, d95) for row in (OracleIouHistogram(), GreyHistogram()))
    found = paired(better, worse)
    assert better.ndcg5 is not None
    assert worse.ndcg5 is not None
    assert found.ndcg5 == pytest.approx(better.ndcg5 - worse.ndcg5)
    assert found.interval[0] is not None
    assert found.interval[0] > 0
    assert set(found.by_sequence) == {"FLAIR", "T1"}
    assert found.queries == 60
    same = paired(worse, worse)
    assert (same.ndcg5, same.interval) == (0, (0, 0))
    part = paired(better, poster(GreyHistogram(), of(stacks, "T1"), d95))
    assert (part.queries, part.unpaired) == (30, 30)
    with pytest.raises(NotMeasurable, match="no query in common"):
        paired(better, poster(GreyHistogram(), stacks, d95, fold="1"))


def test_seeds_are_averaged_before_they_are_paired() -> None:
    stacks = cohort(9, 8)
    d95 = gfd_d95(stacks)
    rows = [poster(OracleIou("row"), stacks, d95, seed=0), poster(RandomOrder("row"), stacks, d95, seed=1)]
    base = poster(GreyHistogram(), stacks, d95)
    found = paired(merge(rows), base)
    assert found.ndcg5 == pytest.approx(np.mean([paired(row, base).ndcg5 for row in rows]))


def test_the_services_protocol_ranks_whole_series() -> None:
    stacks = cohort(10, 7)
    d95 = gfd_d95(stacks)
    method = EncoderMethod("as shipped", Encoder(load_checkpoint(default_checkpoint_path()), "cpu"))
    found = service(method, stacks, d95)
    assert "no slice chosen" in found.protocol
    alike = of(stacks, "T1")
    pooled = np.stack([method.encoder.pool(method.encoder.embed(stack.pixels)) for stack in alike])
    scores = ndcg(pooled @ pooled.T, relevance(alike, alike, d95).mean, ~np.eye(7, dtype=bool), 5)
    assert found.by_sequence["T1"].ndcg5 == pytest.approx(scores.mean())
    grey = ndcg(
        GreyHistogram().series_similarities(alike, alike),
        relevance(alike, alike, d95).mean,
        ~np.eye(7, dtype=bool),
        5,
    )
    assert service(GreyHistogram(), stacks, d95).by_sequence["T1"].ndcg5 == pytest.approx(grey.mean())


def test_the_services_protocol_sees_every_slice() -> None:
    """Other slices full of one grey level: the series' histograms say nothing of the best slice any more."""
    stacks = []
    for number, stack in enumerate(cohort(14, 8, ["T1"])):
        pixels = np.full((40, 128, 128), 0.1 + 0.1 * (number % 3), np.float16)
        pixels[0] = stack.pixels[1]
        masks = np.zeros(pixels.shape, dtype=bool)
        masks[0] = stack.truth
        stacks.append(replace(stack, pixels=pixels, masks=masks, best=0, levels=np.arange(40)))
    d95 = gfd_d95(stacks)
    assert service(GreyHistogram(), stacks, d95).ndcg5 != pytest.approx(poster(GreyHistogram(), stacks, d95).ndcg5)


def test_changed_queries_meet_the_unchanged_gallery_and_relevance() -> None:
    stacks = [*cohort(11, 20), lesion_stack("blind")]
    d95 = gfd_d95(stacks)
    black = [replace(stack, picture=stack.picture * np.float32(0)) for stack in stacks if stack.picture is not None]
    some = [stack if k % 2 else None for k, stack in enumerate(stacks)]
    few = [stack if k < 4 else None for k, stack in enumerate(stacks)]
    changed = {"nothing": stacks, "black": black, "some": some, "few": few}
    found = robustness(GreyHistogram(), stacks, changed, d95)
    assert found.unchanged == poster(GreyHistogram(), stacks, d95)
    assert found.falls["nothing"].ndcg5 == pytest.approx(0, abs=1e-12)
    assert found.falls["nothing"].queries == 40
    assert found.changed["black"].skill5 == pytest.approx(0, abs=1e-9)
    assert found.unchanged.ndcg5 is not None
    assert found.unchanged.random5 is not None
    assert found.falls["black"].ndcg5 == pytest.approx(found.unchanged.ndcg5 - found.unchanged.random5)
    assert found.falls["some"].queries == 20
    assert found.falls["some"].unpaired == 20
    assert found.falls["some"].ndcg5 == pytest.approx(0, abs=1e-12)
    # However few are changed, each is ranked over all.
    assert (found.falls["few"].queries, found.falls["few"].ndcg5) == (4, pytest.approx(0, abs=1e-12))
    assert Robustness.model_validate_json(found.model_dump_json()) == found
    with pytest.raises(ValueError, match="shorter"):
        robustness(GreyHistogram(), stacks, {"nothing": stacks[:3]}, d95)


def test_robustness_merges() -> None:
    one, two = cohort(12, 7), cohort(13, 7)
    parts = [
        robustness(GreyHistogram(), stacks, {"swapped": stacks[::-1]}, 2.0, fold=fold)
        for fold, stacks in (("0", one), ("1", two))
    ]
    found = merge_robustness(parts)
    assert found.falls["swapped"].ndcg5 == pytest.approx(np.mean([part.falls["swapped"].ndcg5 for part in parts]))
    with pytest.raises(NotMeasurable, match="several sets"):
        merge_robustness([parts[0], robustness(GreyHistogram(), two, {"other": two}, 2.0, fold="1")])


def picture(name: str, label: str | None, patient: str | None = None) -> Stack:
    return lesion_stack(patient or name, study=name, label=label)


def test_labels_by_hand() -> None:
    queries = [picture("p", "glioma"), picture("q", "rare"), picture("r", None)]
    labels = ["glioma", "meningioma", "glioma", "meningioma", "glioma"]
    database = [picture(f"d{k}", label) for k, label in enumerate(labels)]
    own = picture("own", "glioma", patient="p")
    table = {("p", f"d{k}"): -float(k) for k in range(5)} | {("p", "p"): 9.0}
    found = labelled(Given(table), queries, [*database, own], fold="4")
    assert found.map == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert found.precision5 == pytest.approx(3 / 5)
    assert found.precision10 == pytest.approx(3 / 5)
    assert found.left_out == {"stacks without label": 1, "queries without relevant series": 1}
    assert set(found.by_label) == {"glioma"}
    assert found.by_label["glioma"].queries == 1
    assert LabelledResult.model_validate_json(found.model_dump_json()) == found


def test_labels_of_chance_and_of_the_ideal() -> None:
    queries = [picture(f"q{k}", "ab"[k % 2]) for k in range(6)]
    database = [picture(f"d{k}", "ab"[k % 2]) for k in range(40)]
    ideal = {(q.patient, d.patient): float(q.label == d.label) for q in queries for d in database}
    found = labelled(Given(ideal), queries, database, fold="1")
    assert (found.map, found.precision5, found.precision10) == pytest.approx((1, 1, 1))
    assert found.intervals["map"] == pytest.approx((1, 1))
    chance = labelled(RandomOrder("given"), queries, database, fold="2")
    assert chance.precision10 == pytest.approx(0.5)
    both = merge_labelled([found, chance])
    assert both.precision5 == pytest.approx(0.75)
    assert both.queries == 12
    with pytest.raises(NotMeasurable, match="twice"):
        merge_labelled([found, found])


def test_labels_that_are_not_there() -> None:
    with pytest.raises(NotMeasurable, match="no labels among the database"):
        labelled(RandomOrder(), [picture("q", "a")], [picture("d", None)])
    with pytest.raises(NotMeasurable, match="no query has a label"):
        labelled(RandomOrder(), [picture("q", "a")], [picture("d", "b")])


def test_what_was_left_out_of_a_fold_counts_once_for_all_its_seeds() -> None:
    queries, database = [picture("q", "a"), picture("r", None)], [picture("d", "a"), picture("e", "b")]
    seeds = [labelled(RandomOrder(), queries, database, fold="1", seed=seed) for seed in range(3)]
    other = labelled(RandomOrder(), queries, database, fold="2")
    assert merge_labelled([*seeds, other]).left_out == {
        "stacks without label": 2,
        "queries without relevant series": 0,
    }


def test_queries_that_cannot_be_changed_are_not_said_to_lack_a_mask() -> None:
    stacks = cohort(1, 4)
    with pytest.raises(NotMeasurable, match=r"could be changed as in slice \+1:"):
        robustness(GreyHistogram(), stacks, {"nothing": stacks, "slice +1": [None] * len(stacks)}, 2.0)
