"""The bar that long work of the learn room shows on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress() -> Progress:
    """A bar with what is done of how many, and how long the rest will take."""
    name = TextColumn("{task.description}", markup=False)  # rows of a table are called as people call them
    return Progress(name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True))
