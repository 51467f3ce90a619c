"""What retention goes by: when a series was used, what is kept, and what this service has committed itself to keep."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "series",
        sa.Column(
            "used_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="when its pixel data arrived or was read last, to within ten minutes",
        ),
    )
    op.execute("""
        UPDATE series SET used_at = arrived.at FROM (
            SELECT series_id, max(received_at) AS at FROM instances GROUP BY series_id) AS arrived
        WHERE arrived.series_id = series.id
    """)
    op.add_column(
        "instances",
        sa.Column(
            "committed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when this service committed itself to keep it (PS3.4 Annex J)",
        ),
    )
    op.create_index(
        "ix_instances_kept",
        "instances",
        ["series_id"],
        unique=False,
        postgresql_where=sa.text("file IS NOT NULL"),
        postgresql_include=["file_size"],
    )
    op.create_index(
        "ix_instances_committed",
        "instances",
        ["series_id"],
        unique=False,
        postgresql_where=sa.text("committed_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_instances_committed", table_name="instances")
    op.drop_index("ix_instances_kept", table_name="instances")
    op.drop_column("instances", "committed_at")
    op.drop_column("series", "used_at")
