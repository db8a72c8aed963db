"""Which places each engine serves beyond its own key: the look-up of portable engines (issue 3, item 4)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Engines built before are found by their exact keys as ever; they serve nothing else until built again."""
    op.create_table(
        "serving",
        sa.Column("family", WORD, nullable=False),
        sa.Column("place", WORD, nullable=False),
        sa.Column("recipe", WORD, nullable=False),
        sa.Column("namespace", WORD, nullable=False),
        sa.Column("version", WORD, nullable=False),
        sa.Column("portable", sa.Boolean(), nullable=False),
        sa.Column("breadth", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("family", "place", "recipe", "namespace", name="pk_serving"),
        sa.ForeignKeyConstraint(
            ["recipe", "namespace"],
            ["engines.recipe", "engines.namespace"],
            name="fk_serving_recipe",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_serving_recipe", "serving", ["recipe", "namespace"])
