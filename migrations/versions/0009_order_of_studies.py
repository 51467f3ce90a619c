"""An index for the order in which studies are listed."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE INDEX ix_studies_moment ON studies (
            (coalesce(translate(attributes #>> '{StudyDate,0}', '.', '')
                || coalesce(translate(attributes #>> '{StudyTime,0}', ':', ''), ''), '')),
            id)
    """)


def downgrade() -> None:
    op.drop_index("ix_studies_moment", table_name="studies")
