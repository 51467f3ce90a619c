"""Commands that make manifests: the tables that training and evaluation read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

commands = typer.Typer(
    help="Lists of pictures that training and evaluation read.", no_args_is_help=True, rich_markup_mode="markdown"
)

Folder = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Where the data are.")]
Out = Annotated[Path, typer.Argument(help="The manifest to write, .csv or .parquet; what is there is replaced.")]


@commands.command()
def brats(folder: Folder, out: Out) -> None:
    """List BraTS cases in the layout of 2021 or 2023, below links too. Headers are read; NaN among the voxels is found
    when they are read for training.

    Example: `pacs-cbir dataset brats BraTS2021_Training_Data brats.csv`
    """
    from pacs_cbir.learn.datasets.brats import brats_rows
    from pacs_cbir.learn.datasets.report import save

    save(*brats_rows(folder), out, Console())


@commands.command()
def kaggle3m(folder: Folder, out: Out) -> None:
    """List the low-grade gliomas of Kaggle's kaggle_3m; FLAIR that stands in for a missing sequence is left out.

    Example: `pacs-cbir dataset kaggle3m kaggle_3m lgg.csv`
    """
    from pacs_cbir.learn.datasets.kaggle3m import kaggle3m_rows
    from pacs_cbir.learn.datasets.report import save

    save(*kaggle3m_rows(folder), out, Console())


@commands.command()
def images(
    table: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Columns path, label, and a manifest's.")],
    out: Out,
) -> None:
    """List any pictures that a table with the column `path` names, such as those of another organ with a label. Headers
    are read; NaN, or a picture that is cut short, is found when it is read for training.

    Example: `pacs-cbir dataset images ovaries/labels.csv ovaries.csv`
    """
    from pacs_cbir.learn.datasets.images import images_rows
    from pacs_cbir.learn.datasets.report import save

    save(*images_rows(table), out, Console())


@commands.command()
def dicom(folder: Folder, out: Out) -> None:
    """List the MR series below a folder of DICOM files; patients and studies get numbers for names.

    Example: `pacs-cbir dataset dicom exported studies.csv`
    """
    from pacs_cbir.learn.datasets.dicom import dicom_rows
    from pacs_cbir.learn.datasets.report import save

    save(*dicom_rows(folder), out, Console())


@commands.command()
def database(out: Out) -> None:
    """List the studies that this service has embedded, under pseudonyms, with the one label that a person gave each.

    Example: `PACS_CBIR_DATA_DIR=/srv/pacs-cbir pacs-cbir dataset database studies.parquet`
    """
    from pacs_cbir.learn.datasets.database import database_rows
    from pacs_cbir.learn.datasets.report import save
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store.session import open_database

    settings = load_settings()
    with open_database(settings) as opened:
        rows, notes = database_rows(settings, opened)
    save(rows, notes, out, Console())


@commands.command()
def split(
    manifest: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The manifest to read.")],
    out: Out,
    folds: Annotated[int, typer.Option(min=2, help="How many splits, named from 0.")] = 2,
) -> None:
    """Put the patients of a manifest into splits in turn, in the order of their names' SHA-1.

    Example: `pacs-cbir dataset split lgg.csv lgg-folds.csv --folds 2`
    """
    from pacs_cbir.learn.datasets.folds import split_by_patient
    from pacs_cbir.learn.datasets.report import save
    from pacs_cbir.learn.manifest_file import read_manifest

    save(split_by_patient(read_manifest(manifest), folds).rows, [], out, Console())
