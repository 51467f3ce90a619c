"""What a backfill could not be told of."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "backfills",
        sa.Column(
            "incomplete",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="where studies may be missing, and why",
        ),
    )


def downgrade() -> None:
    op.drop_column("backfills", "incomplete")
