"""Which encoder answered, as a header field: answers of two are never one list."""

from __future__ import annotations

from typing import Any

from pacs_cbir.search.encoder_index import Current

ENCODER = "Pacs-Cbir-Encoder"

ENCODER_DESCRIBED: dict[str, Any] = {
    ENCODER: {
        "description": "The encoder that answered: its name, and the sha256 over its weights, preprocessing and "
        "precision, as `gliomas-2; identity=0a1b…`.",
        "schema": {"type": "string"},
    }
}
"""OpenAPI's words for the field."""


def encoder_field(current: Current) -> dict[str, str]:
    """The field; nothing where there is no encoder yet."""
    encoder = current.encoder
    return {} if encoder is None else {ENCODER: f"{encoder.name}; identity={encoder.identity}"}
