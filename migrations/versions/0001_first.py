"""The first schema: engines, keys, builds, programs, sweeps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Compared byte by byte, so that prefix look-ups are ranges whatever the server's locale is.
WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _engines()
    _key_parts()
    _builds()
    _waiters()
    _events()
    _attempts()
    _log_chunks()
    _workers()
    _programs()
    _forms()
    _sweeps()
    _trials()
    _counters()


def _engines() -> None:
    op.create_table(
        "engines",
        sa.Column("recipe", WORD, nullable=False),
        sa.Column("namespace", WORD, nullable=False),
        sa.Column("key", WORD, nullable=False),
        sa.Column("digest", WORD, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("weights", WORD, nullable=False),
        sa.Column("build", WORD, nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("build_seconds", sa.Double(), nullable=False),
        sa.Column("manifest_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("recipe", "namespace", name="pk_engines"),
    )
    op.create_index("ix_engines_created", "engines", ["created"])
    op.create_index("ix_engines_digest", "engines", ["digest"])
    op.create_index("ix_engines_key", "engines", ["key"])


def _key_parts() -> None:
    op.create_table(
        "key_parts",
        sa.Column("key", WORD, nullable=False),
        sa.Column("recipe", WORD, nullable=False),
        sa.Column("graph", WORD, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("recorded", sa.Double(), nullable=False),
        sa.Column("parts_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", "recipe", name="pk_key_parts"),
    )
    op.create_index("ix_key_parts_graph", "key_parts", ["graph", "recorded"])
    op.create_index("ix_key_parts_recipe", "key_parts", ["recipe"])
    op.create_index("ix_key_parts_recorded", "key_parts", ["recorded"])


def _builds() -> None:
    op.create_table(
        "builds",
        sa.Column("id", WORD, nullable=False),
        sa.Column("namespace", WORD, nullable=False),
        sa.Column("recipe", WORD, nullable=False),
        sa.Column("key", WORD, nullable=False),
        sa.Column("capability", WORD, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started", sa.Double(), nullable=True),
        sa.Column("finished", sa.Double(), nullable=True),
        sa.Column("not_before", sa.Double(), nullable=True),
        sa.Column("failure_kind", WORD, nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("failure_hint", sa.Text(), nullable=True),
        sa.Column("engine", WORD, nullable=True),
        sa.Column("token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("worker", WORD, nullable=True),
        sa.Column("lease_expires", sa.Double(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("remembered", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("phase", sa.Text(), server_default="", nullable=False),
        sa.Column("progress", sa.Double(), nullable=True),
        sa.Column("log_size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("request_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_builds"),
    )
    op.create_index("ix_builds_created", "builds", ["created", "number", "state"])
    op.create_index(
        "ix_builds_due",
        "builds",
        [sa.literal_column("priority DESC"), "created", "number"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_builds_remembered",
        "builds",
        ["namespace", "recipe"],
        sqlite_where=sa.text("remembered = 1"),
        postgresql_where=sa.text("remembered"),
    )
    op.create_index(
        "ix_builds_running",
        "builds",
        ["id", "lease_expires", "worker"],
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "uq_builds_active",
        "builds",
        ["namespace", "recipe"],
        unique=True,
        sqlite_where=sa.text("state IN ('queued', 'running')"),
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )


def _waiters() -> None:
    op.create_table(
        "waiters",
        sa.Column("build", WORD, nullable=False),
        sa.Column("waiter", WORD, nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name="fk_waiters_build", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build", "waiter", name="pk_waiters"),
    )
    op.create_index("ix_waiters_waiter", "waiters", ["waiter"])


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("build", WORD, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("detail_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name="fk_events_build", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_build", "events", ["build", "id"])


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("build", WORD, nullable=False),
        sa.Column("token", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", WORD, nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("finished", sa.Double(), nullable=True),
        sa.Column("outcome", WORD, server_default="", nullable=False),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name="fk_attempts_build", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build", "token", name="pk_attempts"),
    )


def _log_chunks() -> None:
    op.create_table(
        "log_chunks",
        sa.Column("build", WORD, nullable=False),
        sa.Column("ends", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name="fk_log_chunks_build", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build", "ends", name="pk_log_chunks"),
    )


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", WORD, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("born", sa.Double(), nullable=False),
        sa.Column("capabilities_json", sa.Text(), nullable=False),
        sa.Column("detail_json", sa.Text(), nullable=False),
        sa.Column("seen", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )


def _programs() -> None:
    op.create_table(
        "programs",
        sa.Column("digest", WORD, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("format", WORD, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("graph", WORD, nullable=False),
        sa.Column("weights", WORD, nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_programs"),
    )
    op.create_index("ix_programs_created", "programs", ["created"])


def _forms() -> None:
    op.create_table(
        "forms",
        sa.Column("program", WORD, nullable=False),
        sa.Column("exporter", WORD, nullable=False),
        sa.Column("graph", WORD, nullable=False),
        sa.Column("data", WORD, nullable=True),
        sa.Column("detail_json", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("program", "exporter", name="pk_forms"),
    )


def _sweeps() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", WORD, nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("spec_json", sa.Text(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
    )
    op.create_index("ix_sweeps_created", "sweeps", ["created"])


def _trials() -> None:
    op.create_table(
        "trials",
        sa.Column("sweep", WORD, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("settings_json", sa.Text(), nullable=False),
        sa.Column("key", WORD, nullable=False),
        sa.Column("recipe", WORD, nullable=False),
        sa.Column("asked", WORD, nullable=False),
        sa.Column("build", WORD, nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["sweep"], ["sweeps.id"], name="fk_trials_sweep", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sweep", "number", name="pk_trials"),
    )


def _counters() -> None:
    op.create_table(
        "counters",
        sa.Column("name", WORD, nullable=False),
        sa.Column("field", WORD, nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "field", name="pk_counters"),
    )
