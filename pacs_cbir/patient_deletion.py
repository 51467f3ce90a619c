"""What `pacs-cbir delete-patient` does: a deletion is begun, seen through, and told."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from pacs_cbir.errors import DeletionPending
from pacs_cbir.search.forget import Report, see_through
from pacs_cbir.settings import Settings
from pacs_cbir.store import deletion, files, removal
from pacs_cbir.store.patients import Identifier
from pacs_cbir.store.session import Database

DOOR = "command"
PATIENCE_SECONDS = 60.0


def delete_patient(
    settings: Settings,
    database: Database,
    console: Console,
    named: str | Identifier,
    agree: Callable[[str], bool],
) -> None:
    """Delete a patient, and say what was deleted and that nothing is left.

    Args:
        named: a Study Instance UID of theirs, or their identifier.
        agree: asked before anything is deleted, with how much it would be.

    Raises:
        UnknownPatient: nobody is known by it.
        DeletionPending: something is left, or an index has not said that it is past the deletion.
        DatabaseUnavailable, DiskUnavailable: it stays pending.
    """
    files.prepare(settings)
    with database.transaction() as connection:
        row = removal.owner(connection, named) if isinstance(named, str) else removal.named(connection, named)
        counts = removal.counted(connection, row)
    # Asked outside of a transaction, in which nothing could arrive meanwhile.
    if not agree(f"Delete for good ({', '.join(f'{what}: {count}' for what, count in counts.items())})?"):
        console.print("nothing was deleted")
        return
    with database.transaction() as connection:
        begun = removal.begin(connection, row, DOOR, settings.settle_seconds)
    _tell(console, see_through(settings, database, begun, PATIENCE_SECONDS))


def go_on(settings: Settings, database: Database, console: Console) -> None:
    """Go on with what is pending; errors as `delete_patient`."""
    files.prepare(settings)
    with database.transaction() as connection:
        pending = deletion.pending(connection)
    if not pending:
        console.print("no deletion is pending")
    for one in pending:
        _tell(console, see_through(settings, database, one, PATIENCE_SECONDS))


def _tell(console: Console, report: Report) -> None:
    removed = ", ".join(f"{count} {what}" for what, count in report.removed.items())
    console.print(f"deletion {report.id}: {removed}")
    if not report.proved:
        left = ", ".join(f"{count} in {where}" for where, count in report.left.items())
        waiting = f"{report.indexes_behind} API processes have not said that it is out of their index"
        raise DeletionPending(f"deletion {report.id} is pending: {left or waiting}; --resume looks again")
    console.print("nothing left: looked for in every table, folder, index and snapshot")
