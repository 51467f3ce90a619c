"""Indexes for what is asked again and again while millions of rows are here."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

USED_AT = "when its pixel data arrived or was read last, to within ten minutes"


def upgrade() -> None:
    op.alter_column("series", "used_at", nullable=True, comment=f"{USED_AT}; null: it has left")
    op.execute("""
        UPDATE series SET used_at = NULL
        WHERE NOT EXISTS (SELECT FROM instances WHERE series_id = series.id AND file IS NOT NULL)
    """)
    op.create_index(
        "ix_series_used_at",
        "series",
        ["used_at", "id"],
        unique=False,
        postgresql_where=sa.text("used_at IS NOT NULL"),
    )
    op.create_index("ix_stacks_encoder_id_series_id", "stacks", ["encoder_id", "series_id"], unique=False)
    op.drop_index("ix_stacks_encoder_id", table_name="stacks")


def downgrade() -> None:
    op.create_index("ix_stacks_encoder_id", "stacks", ["encoder_id"], unique=False)
    op.drop_index("ix_stacks_encoder_id_series_id", table_name="stacks")
    op.drop_index("ix_series_used_at", table_name="series")
    op.execute("UPDATE series SET used_at = updated_at WHERE used_at IS NULL")
    op.alter_column("series", "used_at", nullable=False, comment=USED_AT)
