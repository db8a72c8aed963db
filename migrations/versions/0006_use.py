"""Use: when each engine was last handed out, what each key was worth, and whose word a key's links are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """What was recorded before namespaces were trusted or not was recorded by those who could write everything."""
    op.create_table(
        "uses",
        sa.Column("recipe", WORD, nullable=False),
        sa.Column("namespace", WORD, nullable=False),
        sa.Column("used", sa.Double(), nullable=False),
        sa.Column("hits", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("recipe", "namespace", name="pk_uses"),
        sa.ForeignKeyConstraint(
            ["recipe", "namespace"],
            ["engines.recipe", "engines.namespace"],
            name="fk_uses_recipe",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "usage",
        sa.Column("key", WORD, nullable=False),
        sa.Column("field", WORD, nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", "field", name="pk_usage"),
    )
    op.create_index("ix_usage_at", "usage", ["at"])
    op.add_column("key_parts", sa.Column("trusted", sa.Boolean(), nullable=False, server_default=sa.text("true")))
