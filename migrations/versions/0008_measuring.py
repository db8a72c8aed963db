"""Measurements of engines and their baselines, and what awaits measuring (issue 6, item 4)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "measurements",
        sa.Column("id", WORD, nullable=False),
        sa.Column("subject", WORD, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("body_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_measurements"),
    )
    op.create_index("ix_measurements_subject", "measurements", ["subject", "at"])
    op.create_table(
        "measuring",
        sa.Column("id", WORD, nullable=False),
        sa.Column("place", WORD, nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("token", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("worker", WORD, nullable=False, server_default=""),
        sa.Column("lease_expires", sa.Double()),
        sa.Column("failure", sa.Text(), nullable=False, server_default=""),
        sa.Column("ask_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_measuring"),
    )
    op.create_index("ix_measuring_place", "measuring", ["place", "since"])
