"""Upkeep: every blob that a row names stands in a column of its own, by an index; and notes about the farm itself."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
DIGEST_LENGTH = len("sha256:") + 64


def upgrade() -> None:
    """Whether a blob is named by any row must be one look at an index: ``farm reconcile`` asks it of every blob."""
    _column("engines", "manifest", "manifest_json")
    _column("key_parts", "outline", "parts_json")
    _column("forms", "side", "detail_json")
    for table, column in (
        ("engines", "manifest"),
        ("key_parts", "outline"),
        ("forms", "graph"),
        ("forms", "data"),
        ("forms", "side"),
    ):
        op.create_index(f"ix_{table}_{column}", table, [column])
    op.create_table(
        "notes",
        sa.Column("name", WORD, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_notes"),
    )
    # The farm's own name, by which another knows what it has taken over from it (``farm migrate``).
    op.execute(f"INSERT INTO notes (name, value) VALUES ('farm', '{uuid.uuid4().hex}')")


def _column(table: str, name: str, source: str) -> None:
    """Add a column, and fill it with the digest that the JSON text in ``source`` gives under the same name.

    Found by its text: quotes inside a JSON string are escaped, so nothing else reads like it.
    """
    op.add_column(table, sa.Column(name, WORD, nullable=False, server_default=""))
    find = "strpos" if op.get_bind().dialect.name == "postgresql" else "instr"
    before = f'"{name}":"'
    starts = f"{find}({source}, '{before}sha256:')"
    change = f"UPDATE {table} SET {name} = substr({source}, {starts} + {len(before)}, {DIGEST_LENGTH})"
    op.get_bind().exec_driver_sql(f"{change} WHERE {starts} > 0")
