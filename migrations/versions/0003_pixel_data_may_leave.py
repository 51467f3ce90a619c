"""Instances stay known after their pixel data has left."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BEFORE = "path below the instances directory"
AFTER = "path below the instances directory; null: the pixel data is no longer here"


def upgrade() -> None:
    op.alter_column("instances", "file", existing_type=sa.Text(), nullable=True, comment=AFTER, existing_comment=BEFORE)
    op.execute("UPDATE instances SET file = NULL WHERE file LIKE 'gone/%'")


def downgrade() -> None:
    # What has left is a file that is missing to the earlier version, which takes it again when it is sent again.
    op.execute("UPDATE instances SET file = 'gone/' || id WHERE file IS NULL")
    op.alter_column(
        "instances", "file", existing_type=sa.Text(), nullable=False, comment=BEFORE, existing_comment=AFTER
    )
