"""The tables of the DICOM conformance statement, from the code: `python -m tests.conformance` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext

from pacs_cbir.dicom import private_block
from pacs_cbir.pacs import association, commitment, dimse, get, move, query
from pacs_cbir.receive import find, identifier, scp, status
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.app import create_app
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database

# Newer releases of pydicom and pynetdicom know more: what is written of these is the least that is accepted.
AT_LEAST = {"storage", "transfer syntaxes"}
STATEMENT = Path(__file__).parents[1] / "deploy" / "conformance.md"


def statement(written: str, app: FastAPI) -> str:
    """The statement with each table between its marks as the code has it now."""
    for name, lines in tables(app).items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = written.partition(begin)
        _, ended, after = rest.partition(end)
        assert (bool(found), bool(ended)) == (True, True), f"the statement has no place for {name}"
        written = before + begin + "\n" + "\n".join(lines) + "\n\n" + end + after
    return written


def tables(app: FastAPI) -> dict[str, list[str]]:
    """Name of each table → its lines."""
    accepted = scp.application_entity(Settings(storage_commitment=True)).supported_contexts
    services = [context for context in accepted if context.abstract_syntax not in scp.STORAGE_CLASSES]
    storage = [context for context in accepted if context.abstract_syntax in scp.STORAGE_CLASSES]
    return {
        "accepted services": _rows(
            ("SOP class", "UID", "transfer syntaxes", "role"),
            ((*_named(context.abstract_syntax), _syntaxes(context), "SCP") for context in services),
        ),
        "proposed services": _rows(
            ("SOP class", "UID", "role", "for"),
            ((*_named(uid), role, purpose) for uid, role, purpose in proposed_services()),
        ),
        "transfer syntaxes": _rows(
            ("transfer syntax", "UID", "accepted", "proposed within C-GET"),
            (
                (*_named(uid), "yes", "yes" if uid in {*dimse.SYNTAXES, *get.COMPRESSED} else "")
                for uid in scp.TRANSFER_SYNTAXES
            ),
        ),
        "storage": _rows(("SOP class", "UID"), (_named(context.abstract_syntax) for context in storage)),
        "limits": _rows(("what", "value"), _limits()),
        "statuses of C-STORE and C-FIND": _errors(status.STATUS, status.PROCESSING_FAILURE),
        "statuses of N-ACTION": _errors(status.ACTION_STATUS, status.PROCESSING_FAILURE),
        "failure reasons": _rows(
            ("reason", "code"),
            ((name.value, f"`{code:04X}H`") for name, code in status.FAILURE_REASONS.items()),
        ),
        "DICOMweb": _rows(("method", "path", "service"), sorted(_routes(app))),
        "private block": ["```text", *_private_block(), "```"],
    }


def proposed_services() -> list[tuple[UID, str, str]]:
    """What this service asks of others: SOP class, its own role, and what for."""
    return [
        *((uid, "SCU", "`backfill`, `reindex --from pacs`: what the PACS has") for uid in query.MODELS),
        *((uid, "SCU", 'the same with `retrieve = "c-move"`') for uid in move.MODELS),
        *((uid, "SCU", 'the same with `retrieve = "c-get"`') for uid in get.MODELS),
        (commitment.StorageCommitmentPushModel, "SCP", "the report, over an association of its own"),
    ]


def _limits() -> Iterable[tuple[str, str]]:
    yield "Implementation Class UID, Version Name", "those of the pynetdicom release that is installed"
    yield "maximum PDU, as acceptor and as requestor", f"{scp.MAXIMUM_PDU_BYTES} bytes"
    assert scp.MAXIMUM_PDU_BYTES == association.MAXIMUM_PDU_BYTES
    default = Settings.model_fields["maximum_associations"].default
    yield "associations at once, as acceptor", f"{default} (`PACS_CBIR_MAXIMUM_ASSOCIATIONS`)"
    yield "outstanding operations of an association", "1 (no asynchronous operations window)"
    yield "silence on a connection that the SCP bears", f"{scp.NETWORK_SECONDS} s"
    yield "wait for an association request", f"{scp.ACSE_SECONDS} s"
    yield "longest identifier or action information", f"{identifier.MAX_IDENTIFIER_BYTES >> 20} MiB"
    yield "answers to one C-FIND", f"{find.MAX_ANSWERS}, then `A700H`"
    yield "presentation contexts proposed for storage within a C-GET", str(get.STORAGE_CONTEXTS)


def _errors(of: dict[Any, int], otherwise: int) -> list[str]:
    rows = [(f"`{code:04X}H`", _first_sentence(kind.__doc__)) for kind, code in of.items()]
    return _rows(("status", "when"), [*rows, (f"`{otherwise:04X}H`", "Anything else.")])


def _first_sentence(document: str | None) -> str:
    return (document or "").strip().split("\n\n")[0].replace("\n", " ")


def _routes(app: FastAPI) -> Iterable[tuple[str, str, str]]:
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/dicom-web/"):
                yield method.upper(), f"`{path}`", operation["tags"][0]


def _private_block() -> list[str]:
    return re.findall(r"^    (\(0075,.*| {20,}\S.*)$", private_block.__doc__ or "", re.MULTILINE)


def _named(uid: str | UID | None) -> tuple[str, str]:
    assert uid is not None
    return UID(uid).name, f"`{uid}`"


def _syntaxes(context: PresentationContext) -> str:
    if set(context.transfer_syntax or ()) >= set(scp.TRANSFER_SYNTAXES):
        return "all of N.7.3"
    return ", ".join(UID(uid).name for uid in context.transfer_syntax or ())


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def app_without_database() -> FastAPI:
    """The API as it describes itself."""
    database = Database("postgresql://nobody@localhost:1/none")
    searcher = Searcher(database, Follower(database, Path("unused")))
    return create_app(Settings(), database, searcher, None)  # type: ignore[arg-type]  # nothing is decoded


if __name__ == "__main__":
    STATEMENT.write_text(statement(STATEMENT.read_text(), app_without_database()))
