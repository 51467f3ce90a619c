"""Several encoders beside one another, and jobs that embed with one of them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATE = sa.Enum("beside", "active", "former", "retired", name="encoder_state")


def upgrade() -> None:
    STATE.create(op.get_bind())
    op.add_column("encoders", sa.Column("name", sa.Text(), nullable=True))
    op.add_column("encoders", sa.Column("precision", sa.Text(), nullable=True))
    op.add_column(
        "encoders",
        sa.Column(
            "checkpoint_sha256", sa.Text(), nullable=True, comment="names the weights' file below the data directory"
        ),
    )
    op.add_column("encoders", sa.Column("state", STATE, nullable=True))
    op.execute("""
        UPDATE encoders SET name = concat_ws('-', card->>'name', CASE WHEN NOT active THEN id END),
               precision = 'float32', checkpoint_sha256 = coalesce(card->>'weights_sha256', ''),
               state = CASE WHEN active THEN 'active' ELSE 'retired' END::encoder_state
    """)
    for name in ("name", "precision", "checkpoint_sha256", "state"):
        op.alter_column("encoders", name, nullable=False)
    op.add_column(
        "encoders",
        sa.Column("hours", sa.Text(), nullable=True, comment="of the week, in which it reindexes; null: always"),
    )
    op.add_column(
        "encoders",
        sa.Column("workers", sa.SmallInteger(), nullable=True, comment="that reindex with it at once; null: all"),
    )
    op.add_column(
        "encoders",
        sa.Column(
            "from_pacs",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="whether its reindexing fetches what is no longer here",
        ),
    )
    op.create_unique_constraint(op.f("uq_encoders_name"), "encoders", ["name"])
    op.drop_index("uq_encoders_active", table_name="encoders")
    op.drop_column("encoders", "active")
    for state in ("active", "former"):
        where = sa.text(f"state = '{state}'")
        op.create_index(f"uq_encoders_{state}", "encoders", ["state"], unique=True, postgresql_where=where)

    op.drop_column("jobs", "re_embed")
    op.add_column(
        "jobs",
        sa.Column(
            "encoder_id",
            sa.BigInteger(),
            nullable=True,
            comment="to embed with, made by `reindex`; null: with all that are kept up, made by an arrival",
        ),
    )
    op.create_foreign_key(
        op.f("fk_jobs_encoder_id_encoders"), "jobs", "encoders", ["encoder_id"], ["id"], ondelete="CASCADE"
    )
    op.create_index(op.f("ix_jobs_encoder_id"), "jobs", ["encoder_id"], unique=False)
    op.drop_index("uq_jobs_waiting", table_name="jobs")
    op.create_index(
        "uq_jobs_waiting",
        "jobs",
        ["series_id", "encoder_id"],
        unique=True,
        postgresql_where=sa.text("status = 'waiting'"),
        postgresql_nulls_not_distinct=True,
    )
    op.drop_index("ix_jobs_due", table_name="jobs")
    for name, of in (("arrived", "IS NULL"), ("reindex", "IS NOT NULL")):
        where = sa.text(f"status = 'waiting' AND encoder_id {of}")
        op.create_index(f"ix_jobs_{name}", "jobs", ["not_before"], unique=False, postgresql_where=where)


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE encoder_id IS NOT NULL")
    op.drop_index("ix_jobs_reindex", table_name="jobs")
    op.drop_index("ix_jobs_arrived", table_name="jobs")
    op.drop_index("uq_jobs_waiting", table_name="jobs")
    op.drop_index(op.f("ix_jobs_encoder_id"), table_name="jobs")
    op.drop_column("jobs", "encoder_id")
    op.create_index(
        "uq_jobs_waiting", "jobs", ["series_id"], unique=True, postgresql_where=sa.text("status = 'waiting'")
    )
    op.create_index("ix_jobs_due", "jobs", ["not_before"], unique=False, postgresql_where=sa.text("status = 'waiting'"))
    op.add_column(
        "jobs",
        sa.Column(
            "re_embed",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="made by `reindex --re-embed`",
        ),
    )

    op.drop_index("uq_encoders_former", table_name="encoders")
    op.drop_index("uq_encoders_active", table_name="encoders")
    op.add_column("encoders", sa.Column("active", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.execute("UPDATE encoders SET active = state = 'active'")
    op.execute("DELETE FROM stacks USING encoders WHERE encoders.id = encoder_id AND NOT active")
    op.alter_column("encoders", "active", server_default=None)
    op.create_index("uq_encoders_active", "encoders", ["active"], unique=True, postgresql_where=sa.text("active"))
    op.drop_constraint(op.f("uq_encoders_name"), "encoders", type_="unique")
    for name in ("from_pacs", "workers", "hours", "state", "checkpoint_sha256", "precision", "name"):
        op.drop_column("encoders", name)
    STATE.drop(op.get_bind())
