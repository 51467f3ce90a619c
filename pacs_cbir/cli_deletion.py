"""`pacs-cbir delete-patient`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

commands = typer.Typer()


@commands.command(name="delete-patient")
def delete_patient(
    study: Annotated[str | None, typer.Option(help="Study Instance UID of one of the patient's studies.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with deletions that are pending.")] = False,
) -> None:
    """Delete a patient everywhere, and prove it. Without --study the identifier is asked for, or read from a pipe.

    A pipe gives the PatientID in its first line, and in a second one, where there is any, the IssuerOfPatientID. At a
    terminal, and with --study, it says how much will go, and asks whether to: `y` is read from a pipe too.

    Example: `pacs-cbir delete-patient --study 2.25.1234`
    """
    import sys

    from pacs_cbir import logs
    from pacs_cbir.patient_deletion import delete_patient as delete
    from pacs_cbir.patient_deletion import go_on
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store.patients import Identifier
    from pacs_cbir.store.session import open_database

    settings = load_settings()
    logs.configure()
    at_terminal = sys.stdin.isatty()
    named: str | Identifier | None = study
    # Not as an argument: the list of processes is everyone's to read, and a shell keeps its history.
    if named is None and not resume and at_terminal:
        named = Identifier(
            typer.prompt("PatientID", err=True).strip(),
            typer.prompt("IssuerOfPatientID", default="", show_default=False, err=True).strip(),
        )
    elif named is None and not resume:
        named = Identifier(sys.stdin.readline().strip(), sys.stdin.readline().strip())

    def agree(sentence: str) -> bool:
        # Whoever pipes an identifier in has said whom; a UID on the command line may be a slip.
        return (study is None and not at_terminal) or typer.confirm(sentence, err=True)

    with open_database(settings) as database:
        if named is None:
            go_on(settings, database, Console())
        else:
            delete(settings, database, Console(), named, agree)
