"""The size beside the digest in an index: what the plans weigh together is added up without a look at the rows."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """At 10^6 engines ``farm stats`` read every manifest: 15 s on SQLite, and 1 s from the index."""
    op.drop_index("ix_engines_digest", "engines")
    op.create_index("ix_engines_digest", "engines", ["digest", "size"])
