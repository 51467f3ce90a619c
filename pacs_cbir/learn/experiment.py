"""All rows of a table on the same patients; what is measured is kept, so an experiment goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha1
from itertools import compress
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.errors import CheckpointError, NotMeasurable, RecipeError
from pacs_cbir.learn.comparison import Robustness, merge_robustness
from pacs_cbir.learn.contact_sheet import draw_contact_sheet
from pacs_cbir.learn.disturb import CHANGES, change_queries
from pacs_cbir.learn.labelled import LabelledResult, labelled, merge_labelled
from pacs_cbir.learn.methods import Ranking
from pacs_cbir.learn.protocols import check_measurable, poster, robustness, service
from pacs_cbir.learn.recipe import digest
from pacs_cbir.learn.relevance import gfd_d95
from pacs_cbir.learn.report import Report, commit_of_program, device_in_words
from pacs_cbir.learn.results import Frozen, Origin, Result, merge
from pacs_cbir.learn.rows import Entry, Rows
from pacs_cbir.learn.stacks import Stack
from pacs_cbir.learn.table import Table, TableRow, slug
from pacs_cbir.learn.train import fingerprint

MEASURE_REVISION = 2
"""Raise it with every change of relevance, protocols, search or embedding that changes what is measured of the same
weights on the same data: what was kept is measured anew then."""

Measured = Result | LabelledResult | Robustness


@dataclass
class Cohort:
    """The patients of an experiment, drawn as each encoder wants to see them.

    Attributes:
        name: for people; never a patient's.
        draw: how they are read and drawn; with the change of that name, one of `changes`, if one is given.
        changes: names of what can be changed of a query.
        simulated: whether its pictures may be shown to anybody.
    """

    name: str
    draw: Callable[[Preprocessing, str | None], list[Stack]]
    changes: tuple[str, ...] = tuple(CHANGES)
    simulated: bool = False
    _drawn: dict[Preprocessing, list[Stack]] = field(default_factory=dict)
    _changed: dict[Preprocessing, dict[str, list[Stack | None]]] = field(default_factory=dict)

    def stacks(self, preprocessing: Preprocessing) -> list[Stack]:
        """All stacks; drawn once for each preprocessing."""
        if preprocessing not in self._drawn:
            self._drawn[preprocessing] = self.draw(preprocessing, None)
        return self._drawn[preprocessing]

    def changed(self, preprocessing: Preprocessing) -> dict[str, list[Stack | None]]:
        """Each change's queries, in the order of `stacks`; drawn once for each preprocessing."""
        if preprocessing not in self._changed:
            stacks = self.stacks(preprocessing)
            load = partial(self.draw, preprocessing)
            self._changed[preprocessing] = change_queries(stacks, self.changes, load)
        return self._changed[preprocessing]

    @cached_property
    def fingerprint(self) -> str:
        """Of the patients and their pictures, whatever is drawn of them for an encoder; 64 hex digits."""
        return fingerprint(self.stacks(Preprocessing()))


@dataclass(frozen=True)
class Fold:
    """Who is trained on and who is measured.

    Attributes:
        name: of the patients that are measured.
    """

    name: str
    training: frozenset[str]
    measured: frozenset[str]


class Kept(Frozen):
    """One row's result for one protocol, fold and seed, and of what run it is; commit and device: see `Origin`."""

    identity: str
    result: Result | LabelledResult | Robustness
    commit: str | None = None
    device: str | None = None


@dataclass
class Experiment:
    """What all rows share.

    Attributes:
        results: folder of all that is written; `runs/TITLE/` holds one file a row, protocol, fold and seed.
        origins: protocol → name → how the row came about, of those measured so far.
    """

    table: Table
    cohort: Cohort
    rows: Rows
    results: Path
    origins: dict[str, dict[str, Origin]] = field(default_factory=dict)

    @property
    def lock(self) -> Path:
        """What a run holds while it writes into the folder."""
        return self.results / "runs" / ".lock"

    def run(self, console: Console) -> tuple[dict[str, list[Measured]], dict[str, str]]:
        """Measure what is not measured yet.

        Returns:
            Protocol → the rows, in the table's order; and name → why it is not there, of rows that could not be
            measured.

        Raises:
            TableError: rows name what is not there, or recipes that cannot work: all of them.
            RecipeError, NotMeasurable: no row could be measured on these data.
        """
        self.rows.check()
        _ = self.folds  # what no row can be measured on is refused before the first is trained
        measured: dict[str, list[Measured]] = {protocol: [] for protocol in self.table.protocols}
        failed = {}
        for number, row in enumerate(self.table.rows, start=1):
            console.print(f"{number}/{len(self.table.rows)}  {row.name}", highlight=False, markup=False)
            try:
                found = self.measure(row)
            except (RecipeError, NotMeasurable, CheckpointError) as error:
                failed[row.name] = str(error)
                console.print(f"  left out: {error}", style="red", highlight=False, markup=False)
                continue
            for protocol, result in found.items():
                measured[protocol].append(result)
            if warning := self.origins[self.table.protocols[0]][row.name].warning(row.name):
                console.print(f"  {warning}", style="yellow", highlight=False, markup=False)
        return measured, failed

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        """By the table's test split, or two by patient.

        Raises:
            RecipeError: the manifest has no such split, or too few patients.
            NotMeasurable: a protocol does not find in a fold what it measures.
        """
        stacks = self.cohort.stacks(Preprocessing())
        patients = frozenset(stack.patient for stack in stacks)
        if self.table.test_split is None:
            halves = halves_of(patients)
            folds = tuple(Fold(str(i), halves[1 - i], halves[i]) for i in (0, 1))
        else:
            test = frozenset(stack.patient for stack in stacks if stack.split == self.table.test_split)
            if not test or test == patients:
                raise RecipeError(f"split {self.table.test_split!r} of the manifest holds no patient, or all of them")
            folds = (Fold(self.table.test_split, patients - test, test),)
        for fold in folds:
            measured, others = ([s for s in stacks if s.patient in who] for who in (fold.measured, fold.training))
            for protocol in self.table.protocols:
                check_measurable(protocol, measured, others)
        return folds

    @cached_property
    def _d95(self) -> float:
        return gfd_d95(self.cohort.stacks(Preprocessing()))

    def measure(self, row: TableRow) -> dict[str, Measured]:
        """One row under each protocol, over all folds and seeds.

        Raises:
            RecipeError: the row does not fit the data, or names what is not there.
            NotMeasurable: the data have no masks, or no labels.
            CheckpointError: a checkpoint cannot be read.
        """
        entry = self.rows.resolve(row)
        found: dict[str, list[Kept]] = {protocol: [] for protocol in self.table.protocols}
        for seed in self.table.seeds if entry.seeded else self.table.seeds[:1]:
            for fold in self.folds:
                for protocol, kept in self._measure_run(row, entry, seed, fold):
                    found[protocol].append(kept)
        patients = frozenset[str]().union(*(fold.measured for fold in self.folds))
        known = set[str]() if entry.training is None else entry.training.trained_on(patients)
        for protocol, runs in found.items():
            self.origins.setdefault(protocol, {})[row.name] = Origin(
                commit=tuple(sorted({kept.commit for kept in runs if kept.commit is not None})),
                device=tuple(sorted({kept.device for kept in runs if kept.device is not None})),
                measured=len(patients),
                trained_on=None if known is None else len(known),
            )
        return {protocol: _merge([kept.result for kept in runs]) for protocol, runs in found.items()}

    def _measure_run(self, row: TableRow, entry: Entry, seed: int, fold: Fold) -> Iterator[tuple[str, Kept]]:
        """Train, if anything is to be measured, and measure under each protocol."""
        name, place = row.name, f"{self.table.rows.index(row) + 1}/{len(self.table.rows)}"
        stacks = self.cohort.stacks(entry.preprocessing)
        training = [stack for stack in stacks if stack.patient in fold.training]
        measured = [stack for stack in stacks if stack.patient in fold.measured]
        whose = sorted(fold.training), sorted(fold.measured)
        identity = digest(MEASURE_REVISION, entry.identity, fold.name, whose, seed, self.cohort.fingerprint)
        method: Ranking | None = None
        for protocol in self.table.protocols:
            path = self.results / "runs" / self.table.title / slug(name) / f"{protocol}-{slug(fold.name)}-{seed}.json"
            kept = _read_kept(path)
            if kept is None or kept.identity != identity:
                shown = f"{place}  {name}, fold {fold.name}, seed {seed}"
                method = method or entry.make(training, seed, self._weights_folder(), shown)
                match protocol:
                    case "labelled":
                        result: Measured = labelled(method, measured, training, fold=fold.name, seed=seed)
                    case "robustness":
                        changed = self._changed_of(entry.preprocessing, fold)
                        result = robustness(method, measured, changed, self._d95, fold=fold.name, seed=seed)
                    case _:
                        compare = poster if protocol == "poster" else service
                        result = compare(method, measured, self._d95, fold=fold.name, seed=seed)
                kept = Kept(identity=identity, result=result, commit=commit_of_program(), device=device_in_words())
                with whole_file(path) as file:
                    file.write(kept.model_dump_json().encode())
            yield protocol, kept
        if method is not None and self.cohort.simulated and fold is self.folds[0]:
            path = self.results / "sheets" / f"{self.table.title}-{slug(name)}.png"
            draw_contact_sheet(method, measured, self._d95, path, dataset=f"{self.cohort.name}, fold {fold.name}")

    def _changed_of(self, preprocessing: Preprocessing, fold: Fold) -> dict[str, list[Stack | None]]:
        """Each change's queries of the patients that a fold measures."""
        mine = [stack.patient in fold.measured for stack in self.cohort.stacks(preprocessing)]
        return {name: list(compress(of, mine)) for name, of in self.cohort.changed(preprocessing).items()}

    def _weights_folder(self) -> Path:
        """Checkpoints of patients in the data: kept out of git, since they are for measuring alone."""
        folder = self.results / "weights"
        with whole_file(folder / ".gitignore") as file:
            file.write(b"*\n")
        return folder


def report_of(experiment: Experiment, protocol: str, failed: dict[str, str]) -> Report:
    """How the experiment's rows came about."""
    return Report(
        title=experiment.table.title,
        dataset=experiment.cohort.name,
        protocol=protocol,
        split={fold.name: sorted(fold.measured) for fold in experiment.folds},
        seeds=experiment.table.seeds,
        device=device_in_words(),
        commit=commit_of_program(),
        table=digest(experiment.table),
        rows=[],
        failed=failed,
        origins=experiment.origins.get(protocol, {}),
        against={row.name: row.against for row in experiment.table.rows if row.against is not None},
    )


def halves_of(patients: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Two folds: patients sorted by the SHA-1 of their name, alternating; the same wherever they are made.

    Raises:
        RecipeError: fewer than four patients, so that a fold would have nobody to compare with.
    """
    ordered = sorted(patients, key=lambda name: sha1(name.encode(), usedforsecurity=False).hexdigest())
    if len(ordered) < 4:
        raise RecipeError(f"{len(ordered)} patients cannot be parted into two folds that have a gallery each")
    return frozenset(ordered[::2]), frozenset(ordered[1::2])


def _read_kept(path: Path) -> Kept | None:
    """What is kept of a run; None where there is nothing that can be read, so that it is measured again."""
    try:
        return Kept.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _merge(results: list[Measured]) -> Measured:
    changed = [result for result in results if isinstance(result, Robustness)]
    by_label = [result for result in results if isinstance(result, LabelledResult)]
    if changed:
        return merge_robustness(changed)
    return merge_labelled(by_label) if by_label else merge([r for r in results if isinstance(r, Result)])
