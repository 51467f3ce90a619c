"""Small pictures that stay when the pixel data leaves."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "thumbnails",
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("frame_number", sa.Integer(), nullable=False),
        sa.Column("picture", sa.LargeBinary(), nullable=False, comment="JPEG"),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_thumbnails_instance_id_instances"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("instance_id", "frame_number", name=op.f("pk_thumbnails")),
        comment="small pictures of what was embedded, for when the pixel data has left",
    )
    # A picture is compressed already.
    op.execute("ALTER TABLE thumbnails ALTER COLUMN picture SET STORAGE EXTERNAL")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON thumbnails TO pacs_cbir_service")


def downgrade() -> None:
    op.drop_table("thumbnails")
