"""What `pacs-cbir status` and `pacs-cbir settings` print."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from pacs_cbir.errors import DiskUnavailable
from pacs_cbir.settings import SETTINGS_FILE_VARIABLE, Settings
from pacs_cbir.store import backfills, commitments, corrections, encoders
from pacs_cbir.store.room import MEBIBYTE, room
from pacs_cbir.store.session import Database, without_password
from pacs_cbir.store.status import Status, service_status


def print_status(settings: Settings, database: Database, console: Console) -> None:
    """Counts, the encoder, jobs, what was parked and why, and the studies that need a look; no patient's identity.

    Raises:
        DatabaseUnavailable: the server is away.
    """
    with database.transaction() as connection:
        state = service_status(connection)
        untold = commitments.open_requests(connection)
        made = corrections.counted(connection)
    _print_counts(settings, state, console)
    if settings.hl7_port is not None or made:
        told = (f"{count} by {door}, the last at {last:%Y-%m-%d %H:%M}" for door, (count, last) in made.items())
        console.print(f"corrections: {'; '.join(told) or 'none yet'}")
    _print_rows(console, "Rejected", ("Reason", "Instances"), [(r, str(n)) for r, n in state.rejected.items()])
    _print_rows(console, "Not embedded", ("Reason", "Stacks"), [(r, str(n)) for r, n in state.not_embedded.items()])
    gaps = [(study, series, str(missing)) for study, series, missing in state.with_gaps]
    title = "Embedded without slices that are missing between others: rejected, or never sent"
    _print_rows(console, title, ("Study", "Series", "Missing"), gaps)
    _print_rows(
        console,
        "Parked; the next instance of the series, or `pacs-cbir reindex --encoder NAME`, tries again",
        ("Study", "Series", "Encoder", "Since", "Error"),
        [
            (
                job.study_instance_uid,
                job.series_instance_uid,
                job.encoder or "all",
                f"{job.since:%Y-%m-%d %H:%M}",
                job.error,
            )
            for job in state.parked
        ],
    )
    _print_backfills(database, console)
    _print_rows(
        console,
        "Conflicts; `POST /corrections/study` says what is true",
        ("Study", "What", "Instances", "Since"),
        [(c.study_instance_uid, c.kind, str(c.instances), f"{c.since:%Y-%m-%d %H:%M}") for c in state.conflicts],
    )
    deletions = [(str(number),) for number in state.pending_deletions]
    title = "Deletions of patients that are pending; a running API, or `pacs-cbir delete-patient --resume`, goes on"
    _print_rows(console, title, ("Number",), deletions)
    _print_rows(
        console,
        "Storage commitments whose senders were not told; PACS_CBIR_PEERS says where they are",
        ("AE title", "Transaction", "Instances", "Since", "State", "Error"),
        [_commitment(one) for one in untold],
    )
    nameless = [(uid,) for uid in state.studies_without_patient_id]
    _print_rows(console, "No PatientID: each study a patient of its own", ("Study",), nameless)


def _print_counts(settings: Settings, state: Status, console: Console) -> None:
    counts = Table("Patients", "Studies", "Series", "Instances", "Stacks", "Embedded")
    numbers = (state.patients, state.studies, state.series, state.instances, state.stacks, state.embedded)
    counts.add_row(*(str(number) for number in numbers))
    console.print(counts)
    console.print(
        f"encoder: {state.encoder or 'none yet; the first worker brings it'}; `pacs-cbir encoder list` shows all"
    )
    console.print(f"jobs: {', '.join(f'{count} {name}' for name, count in state.jobs.items())}")
    console.print(
        f"pixel data: of {state.with_pixel_data} instances, {state.pixel_data_bytes // MEBIBYTE} MiB; "
        f"retention {settings.retention}; {state.committed} committed"
    )
    console.print(f"disk: {_disk(settings)}")


def _print_backfills(database: Database, console: Console) -> None:
    with database.transaction() as connection:
        listed = backfills.summaries(connection)
    columns = ("PACS", "Studies", "Searched to", "Found", "Here", "Failed", "Ended")
    rows = []
    for one in listed:
        wanted, counts = one.filter, one.counts
        which = f"{wanted.study_date or 'any date'}, {wanted.modality or 'any modality'}"
        which += f", {wanted.body_part}" if wanted.body_part else ""
        numbers = (str(sum(counts.values())), str(counts["done"]), str(counts["parked"]))
        ended = "not yet" if one.finished_at is None else f"{one.finished_at:%Y-%m-%d %H:%M}"
        rows.append((wanted.peer, which, str(one.searched_to or "not yet"), *numbers, ended))
    _print_rows(console, "Backfills; the same `pacs-cbir backfill` goes on", columns, rows)
    unknown = [(one.filter.peer, what) for one in listed for what in one.incomplete]
    _print_rows(console, "What a backfill may lack studies of", ("PACS", "What"), unknown)
    failed = [(one.filter.peer, uid, error) for one in listed for uid, error in one.parked.items()]
    _print_rows(console, "Studies that a backfill could not fetch", ("PACS", "Study", "Error"), failed)


def _commitment(one: commitments.Open) -> tuple[str, ...]:
    since, state = f"{one.requested_at:%Y-%m-%d %H:%M}", "given up" if one.given_up else "tried again"
    state = f"{one.attempts} attempts, {state}"
    return one.ae_title, one.transaction_uid, str(one.instances), since, state, one.error


def _disk(settings: Settings) -> str:
    try:
        now = room(settings)
    except DiskUnavailable as error:
        return str(error)
    state = "receiving" if now.free >= now.reserve else "instances are refused (A700H) until there is room"
    return f"{now.free // MEBIBYTE} MiB free, {now.reserve // MEBIBYTE} kept in reserve; {state}"


def print_encoders(database: Database, console: Console) -> None:
    """A line for each encoder: state, precision, how far it is, and how its reindexing goes.

    Raises:
        DatabaseUnavailable: the server is away.
    """
    with database.transaction() as connection:
        listed = [(row, encoders.progress(connection, row.id)) for row in encoders.listed(connection)]
    # Names are typed again; all else may break over lines, and has those that fit beside it on 80 columns.
    table = Table(Column("Encoder", no_wrap=True), Column("State", overflow="fold"), show_lines=True)
    for row, now in listed:
        source = "PACS" if row.from_pacs else "disk"
        state = (
            f"{row.state}, {row.precision}",
            f"{now.series} of {now.all_series} series",
            f"{now.waiting} waiting, {now.running} running, {now.parked} parked",
            f"reindexed {row.hours or 'always'} by {row.workers or 'all'} workers from {source}",
        )
        table.add_row(row.name, "\n".join(state))
    console.print(table)


def _print_rows(console: Console, title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def print_settings(settings: Settings, console: Console) -> None:
    """A line for each setting: variable, value in force (passwords hidden), where it comes from, what it is for."""
    table = Table(
        Column("Setting", no_wrap=True), Column("Value", overflow="fold"), "From", "What it is for", show_lines=True
    )
    file = os.environ.get(SETTINGS_FILE_VARIABLE)
    for name, field in type(settings).model_fields.items():
        variable = f"PACS_CBIR_{name.upper()}"
        source = "default" if name not in settings.model_fields_set else file or "file"
        if variable in os.environ:
            source = "environment"
        table.add_row(variable, _shown(getattr(settings, name)), source, field.description)
    console.print(table)


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return without_password(value.get_secret_value())
    if isinstance(value, dict):
        return escape("\n".join(f"{key}: {one}" for key, one in value.items()))
    return "" if value is None else str(value)
