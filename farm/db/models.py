"""The tables. What creates and changes them is ``migrations/``; a test holds the two equal.

SQLAlchemy Core, not its ORM: importing the ORM would cost every ``farm`` command another 70 ms, and no row ever
leaves this package as an object. Long columns come last, since SQLite reads a row from its beginning. Times are
seconds since the epoch by the database's clock; ``…json`` columns hold JSON text; a state is a ``BuildState``'s
value.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

# Digests and ids are compared byte by byte: prefix look-ups are ranges, whatever the server's locale is.
WORD = Text().with_variant(Text(collation="C"), "postgresql")
COUNTED = BigInteger().with_variant(Integer, "sqlite")

# The condition of a partial index. SQLAlchemy's own words for it (``sqlite_where``, ``postgresql_where``) import both
# dialects and their drivers, 50 ms of every command; a test holds what is written here equal to the database's.
WHERE = "where"
ACTIVE = "state IN ('queued', 'running')"
QUEUED = "state = 'queued'"
RUNNING = "state = 'running'"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)


def _manifest_blob(context: Any) -> str:
    """Read off the manifest as its row is written, whoever writes it: a row that did not name its manifest's blob
    would lose it to the next ``farm reconcile``."""
    found = json.loads(context.get_current_parameters()["manifest_json"])
    return str(found.get("manifest") or "")


engines = Table(
    "engines",
    metadata,
    Column("recipe", WORD, primary_key=True),
    Column("namespace", WORD, primary_key=True),
    Column("key", WORD, nullable=False),
    Column("digest", WORD, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("weights", WORD, nullable=False),
    Column("build", WORD, nullable=False),
    Column("created", Double, nullable=False),
    Column("build_seconds", Double, nullable=False),
    # What the next build of the same program is expected to take is learned from these (``past``).
    Column("graph", WORD, nullable=False, server_default=""),
    Column("capability", WORD, nullable=False, server_default=""),
    # The blob that holds the same manifest.
    Column("manifest", WORD, nullable=False, server_default="", default=_manifest_blob),
    Column("manifest_json", Text, nullable=False),
    # The size is there to be added up without a look at the rows.
    Index("ix_engines_digest", "digest", "size"),
    Index("ix_engines_key", "key"),
    Index("ix_engines_created", "created"),
    Index("ix_engines_graph", "graph", "created"),
    Index("ix_engines_manifest", "manifest"),
    Index("ix_engines_build", "build"),
)

# Which places an engine serves beyond its own key (``portability.Serves``).
serving = Table(
    "serving",
    metadata,
    Column("family", WORD, primary_key=True),
    Column("place", WORD, primary_key=True),
    Column("recipe", WORD, primary_key=True),
    Column("namespace", WORD, primary_key=True),
    Column("version", WORD, nullable=False),
    Column("portable", Boolean, nullable=False),
    Column("breadth", Integer, nullable=False),
    ForeignKeyConstraint(["recipe", "namespace"], ["engines.recipe", "engines.namespace"], ondelete="CASCADE"),
    Index("ix_serving_recipe", "recipe", "namespace"),
)

# When an engine was last handed out, and how often: what collection goes by. Written in batches.
uses = Table(
    "uses",
    metadata,
    Column("recipe", WORD, primary_key=True),
    Column("namespace", WORD, primary_key=True),
    Column("used", Double, nullable=False),
    Column("hits", BigInteger, nullable=False),
    ForeignKeyConstraint(["recipe", "namespace"], ["engines.recipe", "engines.namespace"], ondelete="CASCADE"),
)

# What a key was worth, number by number (``farm.usage``), and when it was last asked for.
usage = Table(
    "usage",
    metadata,
    Column("key", WORD, primary_key=True),
    Column("field", WORD, primary_key=True),
    Column("value", Double, nullable=False),
    Column("at", Double, nullable=False),
    Index("ix_usage_at", "at"),
)

# Which recipes serve a key (several: a key leaves search settings out; and a recipe serves several keys: it
# leaves inert settings out), and what the two were made of.
key_parts = Table(
    "key_parts",
    metadata,
    Column("key", WORD, primary_key=True),
    Column("recipe", WORD, primary_key=True),
    Column("graph", WORD, nullable=False),
    Column("model", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("recorded", Double, nullable=False),
    # Whether somebody recorded it who may write trusted namespaces: a look-up there believes nobody else.
    Column("trusted", Boolean, nullable=False, server_default=text("true")),
    # The blob that outlines the program.
    Column("outline", WORD, nullable=False, server_default=""),
    Column("parts_json", Text, nullable=False),
    Index("ix_key_parts_recipe", "recipe"),
    Index("ix_key_parts_graph", "graph", "recorded"),
    Index("ix_key_parts_recorded", "recorded"),
    Index("ix_key_parts_outline", "outline"),
)

builds = Table(
    "builds",
    metadata,
    Column("id", WORD, primary_key=True),
    Column("namespace", WORD, nullable=False),
    Column("recipe", WORD, nullable=False),
    Column("key", WORD, nullable=False),
    Column("capability", WORD, nullable=False),
    Column("priority", Integer, nullable=False),
    # Whose share it is built from, and by which submission (``farm.fairness``); ``turn`` is its place in the queue.
    Column("tenant", WORD, nullable=False, server_default=""),
    Column("flow", WORD, nullable=False, server_default=""),
    Column("turn", Double, nullable=False, server_default="0"),
    # Bytes that it is expected to need, of main and of GPU memory.
    Column("memory", BigInteger, nullable=False, server_default="0"),
    Column("gpu_memory", BigInteger, nullable=False, server_default="0"),
    Column("state", WORD, nullable=False),
    Column("created", Double, nullable=False),
    # The place among the builds of one submission, which are all created at one instant.
    Column("number", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("started", Double),
    Column("finished", Double),
    Column("not_before", Double),
    Column("failure_kind", WORD),
    Column("failure_message", Text),
    Column("failure_hint", Text),
    Column("engine", WORD),
    # The fence: rises with every lease, never falls.
    Column("token", BigInteger, nullable=False, server_default="0"),
    Column("worker", WORD),
    Column("node", WORD),
    Column("lease_expires", Double),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    # A permanent failure that answers later requests of this recipe, until it is retried.
    Column("remembered", Boolean, nullable=False, server_default=text("false")),
    Column("phase", Text, nullable=False, server_default=""),
    Column("progress", Double),
    Column("log_size", BigInteger, nullable=False, server_default="0"),
    Column("request_json", Text, nullable=False),
    Index("ix_builds_remembered", "namespace", "recipe", info={WHERE: "remembered"}),
    # The state is there to be counted, and filtered by, without a look at the rows.
    Index("ix_builds_created", "created", "number", "state"),
)
Index(
    "uq_builds_active",
    builds.c.namespace,
    builds.c.recipe,
    unique=True,
    info={WHERE: ACTIVE},
)
# One queue after another, each in the order in which it is leased: a lease reads one row of one queue, however many
# wait in the others.
Index(
    "ix_builds_due",
    builds.c.capability,
    builds.c.priority.desc(),
    builds.c.turn,
    builds.c.created,
    builds.c.number,
    info={WHERE: QUEUED},
)
# How many submissions of one tenant wait.
Index("ix_builds_tenant", builds.c.tenant, builds.c.flow, info={WHERE: QUEUED})
# All that the look for lost leases reads, in the order in which it locks.
Index(
    "ix_builds_running",
    builds.c.id,
    builds.c.lease_expires,
    builds.c.worker,
    info={WHERE: RUNNING},
)

waiters = Table(
    "waiters",
    metadata,
    Column("build", WORD, ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True),
    # Empty: the build is wanted by nobody in particular, and stays (``--no-wait``).
    Column("waiter", WORD, primary_key=True),
    Column("since", Double, nullable=False),
    Index("ix_waiters_waiter", "waiter"),
)

events = Table(
    "events",
    metadata,
    Column("id", COUNTED, primary_key=True, autoincrement=True),
    Column("build", WORD, ForeignKey("builds.id", ondelete="CASCADE"), nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", WORD, nullable=False),
    Column("detail_json", Text, nullable=False),
    Index("ix_events_build", "build", "id"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("build", WORD, ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True),
    Column("token", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
    Column("worker", WORD, nullable=False),
    Column("started", Double, nullable=False),
    Column("finished", Double),
    Column("outcome", WORD, nullable=False, server_default=""),
    Column("message", Text, nullable=False, server_default=""),
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("build", WORD, ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True),
    # Where in the whole log, counted in characters, this piece ends.
    Column("ends", BigInteger, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", WORD, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("born", Double, nullable=False),
    Column("capabilities_json", Text, nullable=False),
    Column("detail_json", Text, nullable=False),
    Column("seen", Double, nullable=False),
)

# The health of nodes, which outlives their workers: failures in a row for which the node itself was to blame.
nodes = Table(
    "nodes",
    metadata,
    Column("name", WORD, primary_key=True),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("aside_until", Double),
    Column("why", Text, nullable=False, server_default=""),
)

# On which nodes a build's attempts failed for reasons that may have been theirs.
tried = Table(
    "tried",
    metadata,
    Column("build", WORD, ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True),
    Column("node", WORD, primary_key=True),
    # ``node``: never offered to that node again; ``lost``: only remembered.
    Column("kind", WORD, nullable=False),
)

# When a queue's workers were last woken: one process of a fleet does so for all.
wakes = Table(
    "wakes",
    metadata,
    Column("capability", WORD, primary_key=True),
    Column("sent", Double, nullable=False),
)

programs = Table(
    "programs",
    metadata,
    Column("digest", WORD, primary_key=True),
    Column("name", Text, nullable=False),
    Column("format", WORD, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("graph", WORD, nullable=False),
    Column("weights", WORD, nullable=False),
    Column("created", Double, nullable=False),
    # When somebody last asked for a build of it.
    Column("used", Double, nullable=False, server_default="0"),
    Index("ix_programs_created", "created"),
)

forms = Table(
    "forms",
    metadata,
    Column("program", WORD, primary_key=True),
    Column("exporter", WORD, primary_key=True),
    Column("graph", WORD, nullable=False),
    Column("data", WORD),
    Column("side", WORD, nullable=False, server_default=""),
    Column("detail_json", Text, nullable=False),
    Column("created", Double, nullable=False),
    # Bytes of its blobs; 0 for those of older farms, which nobody added up.
    Column("size", BigInteger, nullable=False, server_default="0"),
    Index("ix_forms_graph", "graph"),
    Index("ix_forms_data", "data"),
    Index("ix_forms_side", "side"),
)

sweeps = Table(
    "sweeps",
    metadata,
    Column("id", WORD, primary_key=True),
    Column("created", Double, nullable=False),
    Column("spec_json", Text, nullable=False),
    Column("cancelled", Boolean, nullable=False, server_default=text("false")),
    Index("ix_sweeps_created", "created"),
)

trials = Table(
    "trials",
    metadata,
    Column("sweep", WORD, ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("settings_json", Text, nullable=False),
    Column("key", WORD, nullable=False),
    Column("recipe", WORD, nullable=False),
    Column("asked", WORD, nullable=False),
    Column("build", WORD),
    Column("error", Text, nullable=False),
    Index("ix_trials_build", "build"),
)

# Engines that are kept, by the name of who wants them: a set for each name, replaced as a whole. The blobs are kept
# even where another build has taken the engine's place since.
pins = Table(
    "pins",
    metadata,
    Column("name", WORD, primary_key=True),
    Column("recipe", WORD, primary_key=True),
    Column("namespace", WORD, primary_key=True),
    Column("digest", WORD, nullable=False),
    Column("manifest", WORD, nullable=False),
    # The program that it was built from, by which it can be built again.
    Column("program", WORD, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Index("ix_pins_digest", "digest"),
    Index("ix_pins_manifest", "manifest"),
    Index("ix_pins_recipe", "recipe"),
)

# Blobs whose rows were collected: to be looked at again at ``until``, and removed if nothing names them then.
# ``going``: somebody is removing it, or was killed while doing so.
condemned = Table(
    "condemned",
    metadata,
    Column("blob", WORD, primary_key=True),
    Column("kind", WORD, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("since", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("going", Boolean, nullable=False, server_default=text("false")),
    Index("ix_condemned_until", "until"),
)

# What subjects were measured to do: filed under an engine's digest, or a program's (baselines).
measurements = Table(
    "measurements",
    metadata,
    Column("id", WORD, primary_key=True),
    Column("subject", WORD, nullable=False),
    Column("at", Double, nullable=False),
    Column("body_json", Text, nullable=False),
    Index("ix_measurements_subject", "subject", "at"),
)

# What awaits measuring. ``worker`` has it until ``lease_expires``; one with a ``failure`` is left alone.
measuring = Table(
    "measuring",
    metadata,
    Column("id", WORD, primary_key=True),
    Column("place", WORD, nullable=False),
    Column("since", Double, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("token", BigInteger, nullable=False, server_default="0"),
    Column("worker", WORD, nullable=False, server_default=""),
    Column("lease_expires", Double),
    Column("failure", Text, nullable=False, server_default=""),
    Column("ask_json", Text, nullable=False),
    Index("ix_measuring_place", "place", "since"),
)

# What the farm knows of itself, such as which store it goes with.
notes = Table(
    "notes",
    metadata,
    Column("name", WORD, primary_key=True),
    Column("value", Text, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", WORD, primary_key=True),
    Column("field", WORD, primary_key=True),
    Column("value", Double, nullable=False),
)

# What a server's clients show. A secret's SHA-256, never a secret.
tokens = Table(
    "tokens",
    metadata,
    Column("id", WORD, primary_key=True),
    Column("name", WORD, nullable=False),
    Column("digest", WORD, nullable=False),
    Column("scope", WORD, nullable=False),
    Column("namespace", WORD, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("used", Double),
    Index("uq_tokens_name", "name", unique=True),
)
