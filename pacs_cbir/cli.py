"""Commands → Settings → one call each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from pacs_cbir import (
    __version__,
    cli_backfill,
    cli_bench,
    cli_dataset,
    cli_deletion,
    cli_encoder,
    cli_export,
    cli_label,
    cli_learn,
    cli_sequences,
    logs,
)
from pacs_cbir.cli_service import service
from pacs_cbir.errors import PacsCbirError, SettingsError, TableError
from pacs_cbir.settings import load_settings

EXIT_FAILURE = 1
EXIT_SETTINGS = 2

app = typer.Typer(
    name="pacs-cbir",
    help="Content-based image retrieval beside a PACS. For research and teaching; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
database_commands = typer.Typer(help="The database's schema.", no_args_is_help=True)
app.add_typer(database_commands, name="db")
app.add_typer(cli_label.commands, name="label")
app.add_typer(cli_encoder.commands, name="encoder")
app.add_typer(cli_backfill.commands)
app.add_typer(cli_dataset.commands, name="dataset")
app.add_typer(cli_export.commands)
app.add_typer(cli_deletion.commands)
app.add_typer(cli_sequences.commands)
app.add_typer(cli_learn.commands)
app.add_typer(cli_bench.commands, name="bench")


def main() -> None:
    """Run a command; an error of ours is one line on standard error and an exit code, not a traceback."""
    warnings.filterwarnings("ignore", module="pydicom")
    logs.catch_unforeseen()
    try:
        app()
    except (SettingsError, TableError) as error:
        Console(stderr=True).print(f"pacs-cbir: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(EXIT_SETTINGS)
    except PacsCbirError as error:
        Console(stderr=True).print(f"pacs-cbir: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(EXIT_FAILURE)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def serve() -> None:
    """Run the whole service: SCP, workers, API and HL7 as child processes that are restarted when they die.

    Without PACS_CBIR_DATABASE_URL an embedded Postgres runs below the data directory.

    Example: `PACS_CBIR_DATA_DIR=/srv/pacs-cbir pacs-cbir serve`
    """
    from pacs_cbir.supervisor import supervise

    settings, stop = service()
    supervise(settings, stop)


@app.command()
def scp() -> None:
    """Run one part alone: the SCP that receives studies from the PACS by C-STORE and answers C-FIND.

    Example: `PACS_CBIR_AE_TITLE=CBIR pacs-cbir scp`
    """
    from pacs_cbir.receive.scp import run_scp
    from pacs_cbir.store.session import open_database

    settings, stop = service()
    # One connection for each association, one for the sweep and one for commitments.
    with open_database(settings, pool_size=settings.maximum_associations + 2) as database:
        run_scp(settings, database, stop)


@app.command()
def worker() -> None:
    """Run one part alone: a worker that embeds settled series. Run as many as there are cores or GPUs to use.

    Example: `CUDA_VISIBLE_DEVICES=1 pacs-cbir worker`
    """
    from pacs_cbir.store.presence import this_worker
    from pacs_cbir.store.session import open_database
    from pacs_cbir.worker import run_worker

    settings, stop = service()
    with open_database(settings, name=this_worker()) as database:
        run_worker(settings, database, stop)


@app.command()
def hl7() -> None:
    """Run one part alone: HL7 ADT messages (A08, A31, A40) over MLLP, from the hospital's interface engine.

    Example: `PACS_CBIR_HL7_PORT=2575 pacs-cbir hl7`
    """
    from pacs_cbir.adt.server import run_hl7
    from pacs_cbir.store.session import open_database

    settings, stop = service()
    with open_database(settings, pool_size=2) as database:
        run_hl7(settings, database, stop)


@app.command()
def api() -> None:
    """Run one part alone: the REST API with its own vector index. Its documentation is at /docs.

    Example: `PACS_CBIR_HTTP_PORT=8001 pacs-cbir api`
    """
    from pacs_cbir.serve.run import run_api
    from pacs_cbir.store.session import open_database

    settings, stop = service()
    with open_database(settings) as database:
        run_api(settings, database, stop)


@app.command()
def health(
    role: Annotated[Literal["scp", "worker", "api"], typer.Argument(help="Which part of this machine.")],
) -> None:
    """Ask one part whether it does what it is there for; the exit code answers a container's health check.

    The SCP is sent a C-ECHO, the API is asked whether it is ready, and the worker has to have spoken to the database
    within PACS_CBIR_LEASE_SECONDS.

    Example: `pacs-cbir health scp`
    """
    from pacs_cbir.health import check

    check(role, load_settings())


@app.command()
def status() -> None:
    """Show what is here: counts, the encoder, jobs, what was parked and why, studies that need a look.

    Example: `pacs-cbir status`
    """
    from pacs_cbir.status import print_status
    from pacs_cbir.store.session import open_database

    settings = load_settings()
    with open_database(settings) as database:
        print_status(settings, database, Console())


@app.command()
def reindex(
    encoder: Annotated[
        str | None, typer.Option(help="Embed what this encoder lacks, beside the one that answers; see `encoder list`.")
    ] = None,
    source: Annotated[
        Literal["pacs"] | None, typer.Option("--from", help="Fetch pixel data that is no longer here from there.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=1000, help="Workers that do so at once, at most.")] = None,
    hours: Annotated[str | None, typer.Option(help="Hours of the week in which they do so.")] = None,
) -> None:
    """Embed what is here with another encoder too; without one, build the vector index anew from the database's rows.

    The workers embed, and what arrives goes first. Interrupted, they go on; called again, it shows how far they are,
    and tries again what was parked.

    Example: `pacs-cbir reindex --encoder our-hospital --hours "Mon-Fri 19:00-06:00, Sat-Sun"`
    """
    from pacs_cbir.reindex import rebuild, report_reindex, show_progress, start_reindex
    from pacs_cbir.store.session import open_database

    settings, stop = service()
    with open_database(settings) as database:
        if encoder is None:
            if (source, workers, hours) != (None, None, None):
                raise SettingsError("--from, --workers and --hours belong to --encoder")
            rebuild(settings, database, Console())
            return
        encoder_id = start_reindex(database, encoder, hours=hours, workers=workers, from_pacs=source == "pacs")
        done = show_progress(database, encoder_id, stop, Console())
        report_reindex(database, encoder, Console(), done=done)
    if not done:
        raise typer.Exit(EXIT_FAILURE)


@database_commands.command()
def upgrade() -> None:
    """Bring the database's schema to this version's, as the owner that PACS_CBIR_DATABASE_OWNER_URL names.

    Example: `PACS_CBIR_DATABASE_OWNER_URL=postgresql://owner@db/cbir pacs-cbir db upgrade`
    """
    from pacs_cbir.store import schema
    from pacs_cbir.store.session import open_owner

    with open_owner(load_settings()) as database:
        before = schema.current(database)
        schema.upgrade(database)
        typer.echo(f"schema {before or 'missing'} → {schema.current(database)}")


@app.command()
def settings() -> None:
    """Print the settings in force, where they come from, and what each is for; secrets are hidden.

    Example: `PACS_CBIR_SETTINGS_FILE=/etc/pacs-cbir.toml pacs-cbir settings`
    """
    from pacs_cbir.status import print_settings

    print_settings(load_settings(), Console())


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet.")],
    patients: Annotated[int, typer.Option(min=1, help="How many patients.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cohort, bit by bit.")] = 0,
    skull_stripped: Annotated[bool, typer.Option("--skull-stripped", help="Brains alone, as in BraTS.")] = False,
    layout: Annotated[
        Literal["dicom", "brats"], typer.Option(help="DICOM studies for a PACS, or NIfTI with masks for training.")
    ] = "dicom",
) -> None:
    """Write studies (T1, T1CE, T2, FLAIR) of simulated patients with gliomas, with the truth beside them.

    Example: `pacs-cbir simulate --patients 20 --seed 1 cohort`
    """
    from rich.progress import track

    from pacs_cbir.learn.simulate import simulate_cohort
    from pacs_cbir.learn.simulated_cases import simulate_cases

    write = simulate_cohort if layout == "dicom" else simulate_cases
    written: Iterable[object] = write(out, patients=patients, seed=seed, skull_stripped=skull_stripped)
    for _ in track(written, "Simulating", total=patients, console=Console(stderr=True)):
        pass
    typer.echo(str(out))


@app.command()
def demo(
    patients: Annotated[int, typer.Option(min=2, help="How many patients to simulate.")] = 12,
    source: Annotated[
        Path | None, typer.Option("--from", exists=True, help="Send the DICOM files of this folder instead.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop after the report instead of staying up.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Folder for the picture and report.json; a temporary one without it.")
    ] = None,
) -> None:
    """See the whole mission: a cohort goes in by C-STORE, a study is the example, a contact sheet is the answer.

    Runs the service in a data directory of its own, which it removes at the end.

    Example: `pacs-cbir demo --once --report out`
    """
    from pacs_cbir.demo import run_demo

    settings, stop = service()
    run_demo(settings, stop, patients=patients, source=source, once=once, report=report, console=Console())
