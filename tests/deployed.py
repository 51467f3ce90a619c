"""What files in deploy/ may name: commands, variables, health checks; each as the code has it."""

from __future__ import annotations

from pathlib import Path

import typer.main

from pacs_cbir import cli, health
from pacs_cbir.settings import SETTINGS_FILE_VARIABLE, Settings

DEPLOY = Path(__file__).parents[1] / "deploy"

VARIABLES = {f"PACS_CBIR_{name.upper()}" for name in Settings.model_fields} | {SETTINGS_FILE_VARIABLE}
"""Names of settings in the environment."""


def _commands(group: object, above: str = "") -> set[str]:
    found = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found |= _commands(command, f"{above}{name} ") if hasattr(command, "commands") else {f"{above}{name}"}
    return found


COMMANDS = _commands(typer.main.get_command(cli.app))
"""`scp`, `db upgrade`, and so on."""

HEALTH_CHECKS = {("pacs-cbir", "health", role) for role in health.ROLES}
"""The commands of containers' health checks."""
