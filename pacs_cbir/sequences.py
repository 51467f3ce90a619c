"""What `pacs-cbir sequences` does: show which headers were read as which MR sequence, and read them anew."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from pacs_cbir.dicom.frames import first_number
from pacs_cbir.dicom.rules import SiteRules, read_rules
from pacs_cbir.dicom.sequence import SequenceEvidence, not_embeddable
from pacs_cbir.dicom.sequence_header import LOOKED_AT, Sequence
from pacs_cbir.embed.checkpoint import Card, card_of
from pacs_cbir.errors import PixelDataGone
from pacs_cbir.settings import Settings
from pacs_cbir.store import embeddings, encoders, jobs, sequences
from pacs_cbir.store.sequences import NamedStack, ReadAs
from pacs_cbir.store.session import Database

# First what a rule is most often written for.
_SHOWN = sorted(LOOKED_AT, key=lambda keyword: (keyword not in {"SeriesDescription", "ProtocolName"}, keyword))
BUSY_SECONDS = 0.1


def print_sequences(database: Database, console: Console) -> None:
    """A row for each sequence, reason and header, the unknown ones first; numbers as ranges.

    Raises:
        DatabaseUnavailable.
    """
    with database.transaction() as connection:
        found = sequences.read_as(connection)
    order = [Sequence.UNKNOWN, *(one for one in Sequence if one is not Sequence.UNKNOWN)]
    table = Table("Sequence", "Stacks", "Series", show_lines=True)
    for name in ("Because of", "Header"):
        table.add_column(name, overflow="fold")
    for one in sorted(found, key=lambda one: order.index(Sequence(one.sequence))):
        table.add_row(one.sequence, str(one.stacks), str(one.series), escape(one.values["rule"]), escape(_header(one)))
    console.print(table)


def _header(one: ReadAs) -> str:
    shown = {**one.values, **{keyword: _range(values) for keyword, values in one.numbers.items()}}
    return "\n".join(f"{keyword}: {shown[keyword]}" for keyword in _SHOWN if keyword in shown)


def _range(values: tuple[str, ...]) -> str:
    def size(text: str) -> tuple[float, str]:
        found = first_number(text.split("\\", maxsplit=1)[0])
        return (math.inf if found is None else found, text)

    least, most = min(values, key=size), max(values, key=size)
    return least if least == most else f"{least} to {most}"


def print_changes(settings: Settings, database: Database, console: Console) -> None:
    """What `re_sort_all` would read otherwise, of the encoder that answers: a row for each change, reason and name.

    Raises:
        as `re_sort_all`.
    """
    rules = read_rules(settings.sequence_rules)
    with database.transaction() as connection:
        active = encoders.active(connection)
        total = sequences.count_series(connection)
    changes: Counter[tuple[str, ...]] = Counter()
    cards = {} if active is None else {active.id: card_of(active.card)}
    for _, found in track(_by_series(database, cards), "Reading headers", total=total, console=Console(stderr=True)):
        for stack in found:
            if (anew := _read_anew(stack, rules)) is not None:
                told = anew.told
                name = told.evidence.get("SeriesDescription", "")
                changes[stack.sequence, told.sequence.value, told.evidence["rule"], name] += 1
    table = Table("Now", "Then", "Stacks")
    for name in ("Because of", "SeriesDescription"):
        table.add_column(name, overflow="fold")
    for (before, after, reason, name), count in changes.most_common():
        table.add_row(before, after, str(count), escape(reason), escape(name))
    console.print(table if changes else "nothing would be read otherwise")


def re_sort_all(settings: Settings, database: Database, console: Console) -> None:
    """Read anew what all stacks were read from, by the site's rules as they are now.

    A series at a time, each in one transaction: interrupted, the same command goes on. Embeddings stay. What was left
    out as a localiser or a map, and is none any more, has no embeddings: a worker makes them.

    Raises:
        SettingsError: the rules cannot be read.
        CheckpointError: an encoder's card cannot.
        DatabaseUnavailable.
    """
    rules = read_rules(settings.sequence_rules)
    with database.transaction() as connection:
        cards = {row.id: card_of(row.card) for row in encoders.kept(connection)}
        total = sequences.count_series(connection)
    run = _ReSort(settings, database, rules, cards)
    for series_id, found in track(_by_series(database, cards), "Reading headers", total=total, console=console):
        if any(_read_anew(stack, rules) for stack in found):
            run.series(series_id)
    console.print(f"{run.stacks} stacks are read otherwise than before")
    if run.waiting:
        console.print(f"{run.waiting} series were left out until now, and are to be embedded by a worker")
    if run.gone:
        console.print(
            f"{run.gone} of them have lost their pixel data: they are embedded once they are sent again, and "
            "`pacs-cbir status` lists them as parked until then"
        )


def _by_series(database: Database, cards: Mapping[int, Card]) -> Iterator[tuple[int, list[NamedStack]]]:
    after = 0
    while True:
        with database.transaction() as connection:
            some = sequences.series_after(connection, after)
            found = sequences.named_stacks(connection, some, cards)
        if not some:
            return
        of_series = {series_id: list(stacks) for series_id, stacks in groupby(found, lambda one: one.series_id)}
        yield from ((series_id, of_series.get(series_id, [])) for series_id in some)
        after = some[-1]


@dataclass(frozen=True)
class _Anew:
    """What a stack is read as now.

    Attributes:
        not_embedded: why it has no embeddings; None where it has some.
        to_embed: whether it has none, and is to have some.
    """

    told: SequenceEvidence
    not_embedded: str | None
    to_embed: bool


def _read_anew(stack: NamedStack, rules: SiteRules) -> _Anew | None:
    """None where nothing is otherwise than it was."""
    before = SequenceEvidence(Sequence(stack.sequence), dict(stack.evidence))
    told = rules.classify(before.evidence)
    if told == before:
        return None
    was_left_out = not_embeddable(stack.sop_class_uid, before) is not None
    reason = not_embeddable(stack.sop_class_uid, told)
    if was_left_out and stack.not_embedded is not None and reason is None:
        return _Anew(told, stack.not_embedded, to_embed=True)
    # Where the name is not the reason, as with what is no volume, the reason stays.
    return _Anew(told, reason or stack.not_embedded, to_embed=False)


@dataclass
class _ReSort:
    """Stacks get the names that the rules give them, series by series.

    Attributes:
        cards: of the encoders that are kept up, by their rows' ids.
        stacks: how many got another row.
        waiting: series that are to be embedded for it.
        gone: those of them whose pixel data has left.
    """

    settings: Settings
    database: Database
    rules: SiteRules
    cards: Mapping[int, Card]
    stacks: int = 0
    waiting: int = 0
    gone: int = 0

    def series(self, series_id: int) -> None:
        """Rename a series' stacks, and have it embedded where it must be."""
        while (to_embed := self._rename(series_id)) is None:
            time.sleep(BUSY_SECONDS)
        if not to_embed:
            return
        # A transaction of its own: whoever claims the job may wait for an encoder that was held in the other one.
        with self.database.transaction() as connection:
            jobs.enqueue(connection, series_id, self.settings.settle_seconds)
            try:
                embeddings.series_files(connection, series_id)
            except PixelDataGone:
                self.gone += 1
        self.waiting += 1

    def _rename(self, series_id: int) -> bool | None:
        """Whether stacks are left that must be embedded for it; None where the series is locked at present."""
        to_embed, renamed = False, 0
        with self.database.transaction() as connection:
            # No worker saves meanwhile: it would not see the rows that are written here, and leave them beside its own.
            kept = encoders.hold(connection, list(self.cards), alone=True)
            if not sequences.hold_series(connection, series_id):
                return None if sequences.is_there(connection, series_id) else False
            for stack in sequences.named_stacks(connection, [series_id], kept):
                anew = _read_anew(stack, self.rules)
                if anew is None:
                    continue
                if anew.to_embed:
                    # Its row stays until a worker has embedded the series: so the same command finds it again.
                    to_embed = True
                    continue
                name, evidence = anew.told.sequence.value, anew.told.evidence
                in_domain = self.cards[stack.encoder_id].in_domain(name, stack.body_part)
                sequences.rename(connection, stack, sequences.Name(name, evidence, in_domain, anew.not_embedded))
                renamed += 1
        self.stacks += renamed
        return to_embed
