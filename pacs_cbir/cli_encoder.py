"""Commands of the encoders that an installation has: `encoder`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

commands = typer.Typer(
    help="The encoders of this installation: one answers, others are built beside it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Name = Annotated[str, typer.Argument(help="As `pacs-cbir encoder list` shows it.")]


@commands.command()
def add(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="A .safetensors file, its card beside it; or the packaged."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Under which it is known here; by default as its card says.")] = None,
) -> None:
    """Check an encoder's checkpoint and copy it into the data directory; what arrives is embedded by it from now on.

    Its embeddings are made with this machine's precision: run it where a worker runs. Then
    `pacs-cbir reindex --encoder` embeds what is here already, and `pacs-cbir encoder activate` lets it answer.

    Example: `pacs-cbir encoder add checkpoints/our-hospital.safetensors`
    """
    from pacs_cbir.kept_encoders import add_encoder
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store import files
    from pacs_cbir.store.session import open_database

    settings = load_settings()
    files.prepare(settings)
    with open_database(settings) as database:
        row = add_encoder(settings, database, checkpoint, name)
    typer.echo(f"{row.name} was added with precision {row.precision}; next: pacs-cbir reindex --encoder {row.name}")


@commands.command(name="list")
def list_() -> None:
    """Show each encoder's state, and how far its embeddings are.

    Example: `pacs-cbir encoder list`
    """
    from pacs_cbir.settings import load_settings
    from pacs_cbir.status import print_encoders
    from pacs_cbir.store.session import open_database

    with open_database(load_settings()) as database:
        print_encoders(database, Console())


@commands.command()
def activate(
    name: Name,
    *,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Though series that it has not embedded leave the answers.")
    ] = False,
) -> None:
    """Let an encoder answer; every API process follows. Refused while series that are in the answers would be missing.

    Example: `pacs-cbir encoder activate our-hospital`
    """
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store import encoders
    from pacs_cbir.store.session import open_database

    with open_database(load_settings()) as database, database.transaction() as connection:
        encoders.activate(connection, name, incomplete=incomplete)
    typer.echo(f"{name} answers from now on; `pacs-cbir encoder rollback` goes back")


@commands.command()
def rollback() -> None:
    """Let the encoder that answered before answer again.

    Example: `pacs-cbir encoder rollback`
    """
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store import encoders
    from pacs_cbir.store.session import open_database

    with open_database(load_settings()) as database, database.transaction() as connection:
        row, lacks = encoders.rollback(connection)
    without = f", without {lacks.series} series that it has not embedded" if lacks.series else ""
    typer.echo(f"{row.name} answers again{without}")


@commands.command()
def retire(name: Name) -> None:
    """Give an encoder up that does not answer: its embeddings and its checkpoint are deleted.

    Interrupted, the next call goes on.

    Example: `pacs-cbir encoder retire gliomas-2`
    """
    from pacs_cbir.kept_encoders import retire_encoder
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store.session import open_database

    settings = load_settings()
    with open_database(settings) as database:
        deleted = retire_encoder(settings, database, name)
    typer.echo(f"{name} is retired; {deleted} stacks were deleted")
