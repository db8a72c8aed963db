"""A fleet: turns of tenants, what builds need, nodes and their health, and who woke which queue when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
QUEUED = sa.text("state = 'queued'")


def upgrade() -> None:
    """The queue gets an index that begins with the capability: a fleet has many queues, and a lease reads one."""
    _columns()
    op.drop_index("ix_builds_due", "builds")
    where = {"sqlite_where": QUEUED, "postgresql_where": QUEUED}
    order = ["capability", sa.text("priority DESC"), "turn", "created", "number"]
    op.create_index("ix_builds_due", "builds", order, **where)
    op.create_index("ix_builds_tenant", "builds", ["tenant", "flow"], **where)
    op.create_index("ix_engines_graph", "engines", ["graph", "created"])
    op.create_table(
        "nodes",
        sa.Column("name", WORD, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("aside_until", sa.Double),
        sa.Column("why", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("name", name="pk_nodes"),
    )
    op.create_table(
        "tried",
        sa.Column("build", WORD, nullable=False),
        sa.Column("node", WORD, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.PrimaryKeyConstraint("build", "node", name="pk_tried"),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name="fk_tried_build", ondelete="CASCADE"),
    )
    op.create_table(
        "wakes",
        sa.Column("capability", WORD, nullable=False),
        sa.Column("sent", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("capability", name="pk_wakes"),
    )


def _columns() -> None:
    """Plain additions, which neither database rewrites its tables for."""
    for name, kind in (("graph", WORD), ("capability", WORD)):
        op.add_column("engines", sa.Column(name, kind, nullable=False, server_default=""))
    for name, kind, default in (
        ("tenant", WORD, ""),
        ("flow", WORD, ""),
        ("turn", sa.Double(), "0"),
        ("memory", sa.BigInteger(), "0"),
        ("gpu_memory", sa.BigInteger(), "0"),
    ):
        op.add_column("builds", sa.Column(name, kind, nullable=False, server_default=default))
    op.add_column("builds", sa.Column("node", WORD))
