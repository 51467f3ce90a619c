"""Which encoder's embeddings the answers are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from pacs_cbir.errors import EncoderMismatch
from pacs_cbir.store.tables import encoders

_MISMATCH = (
    "the embeddings here were made by another encoder (weights, preprocessing or precision differ): "
    "`pacs-cbir reindex --re-embed` embeds every series with this one"
)


@dataclass(frozen=True)
class EncoderRow:
    """An encoder that has embeddings here.

    Attributes:
        id: its row.
        identity: sha256 over weights, preprocessing and precision; embeddings of two identities never compare.
        card: the checkpoint's card.
    """

    id: int
    identity: str
    card: dict[str, Any]


def active(connection: Connection) -> EncoderRow | None:
    """The encoder whose embeddings are searched; None before the first worker ran."""
    row = connection.execute(
        select(encoders.c.id, encoders.c.identity, encoders.c.card).where(encoders.c.active)
    ).one_or_none()
    return None if row is None else EncoderRow(row.id, row.identity, row.card)


def register(connection: Connection, identity: str, card: dict[str, Any]) -> int:
    """The row of a worker's encoder, which becomes the active one where there is none.

    Raises:
        EncoderMismatch: another encoder is active.
    """
    connection.execute(
        upsert(encoders)
        .values(identity=identity, card=card, active=True)
        .on_conflict_do_nothing()  # on the identity, or on the one active row
    )
    row = active(connection)
    if row is None or row.identity != identity:
        raise EncoderMismatch(_MISMATCH)
    return row.id


def require_active(connection: Connection, identity: str) -> None:
    """Make sure that an encoder is the one whose embeddings are searched.

    Raises:
        EncoderMismatch: another one is, or none yet.
    """
    row = active(connection)
    if row is None:
        raise EncoderMismatch("nothing is embedded here yet: start a worker (`pacs-cbir worker`)")
    if row.identity != identity:
        raise EncoderMismatch(
            "this process would embed with another encoder than the workers (weights, preprocessing or precision "
            "differ): give both the same PACS_CBIR_CHECKPOINT, and both a GPU or neither"
        )


def hold_active(connection: Connection, encoder_id: int) -> None:
    """Make sure that an encoder is the active one, and stays it until the transaction ends.

    Raises:
        EncoderMismatch: another encoder is active.
    """
    row = select(encoders.c.active).where(encoders.c.id == encoder_id).with_for_update(read=True)
    if not connection.scalar(row):
        raise EncoderMismatch(_MISMATCH)


def activate(connection: Connection, identity: str, card: dict[str, Any]) -> int:
    """Make an encoder the active one, whichever was."""
    # Two at once would each add an active row.
    connection.execute(text("LOCK TABLE encoders IN SHARE ROW EXCLUSIVE MODE"))
    connection.execute(update(encoders).where(encoders.c.identity != identity).values(active=False))
    return int(
        connection.execute(
            upsert(encoders)
            .values(identity=identity, card=card, active=True)
            .on_conflict_do_update(index_elements=["identity"], set_={"active": True, "card": card})
            .returning(encoders.c.id)
        ).scalar_one()
    )
