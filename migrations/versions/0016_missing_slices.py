"""How many slices a stack lacks between others."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "stacks",
        sa.Column(
            "missing_slices",
            sa.SmallInteger(),
            nullable=False,
            server_default=sa.text("0"),
            comment="between others: rejected, or never sent",
        ),
    )


def downgrade() -> None:
    op.drop_column("stacks", "missing_slices")
