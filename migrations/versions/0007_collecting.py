"""Collection: pins, what is about to be removed, when programs were last wanted, and how large forms are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("programs", sa.Column("used", sa.Double(), nullable=False, server_default="0"))
    op.add_column("forms", sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_engines_build", "engines", ["build"])
    op.create_index("ix_trials_build", "trials", ["build"])
    op.create_table(
        "pins",
        sa.Column("name", WORD, nullable=False),
        sa.Column("recipe", WORD, nullable=False),
        sa.Column("namespace", WORD, nullable=False),
        sa.Column("digest", WORD, nullable=False),
        sa.Column("manifest", WORD, nullable=False),
        sa.Column("program", WORD, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double()),
        sa.PrimaryKeyConstraint("name", "recipe", "namespace", name="pk_pins"),
    )
    for column in ("digest", "manifest", "recipe"):
        op.create_index(f"ix_pins_{column}", "pins", [column])
    op.create_table(
        "condemned",
        sa.Column("blob", WORD, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("going", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("blob", name="pk_condemned"),
    )
    op.create_index("ix_condemned_until", "condemned", ["until"])
