"""What `pacs-cbir status` and `pacs-cbir settings` print."""

from __future__ import annotations

import os

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url

from pacs_cbir.settings import SETTINGS_FILE_VARIABLE, Settings


def print_settings(settings: Settings, console: Console) -> None:
    """A line for each setting: variable, value in force (passwords hidden), where it comes from, what it is for."""
    table = Table("Setting", "Value", "From", "What it is for")
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
        return make_url(value.get_secret_value()).render_as_string(hide_password=True)
    return "" if value is None else str(value)
