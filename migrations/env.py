"""Alembic's entry: migrates the connection that farm hands over, or the database that ``-x url=`` names."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from farm.db.models import metadata


def migrate(connection: Connection) -> None:
    """Run the migrations in the connection's own transaction: all of them happen, or none."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,
        transaction_per_migration=False,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def connect_and_migrate() -> None:
    from farm.config import load
    from farm.db.session import WRITES, make_engine, parse_url

    url = context.get_x_argument(as_dictionary=True).get("url") or load().database
    with make_engine(parse_url(url)).connect() as connection:
        migrate(connection.execution_options(**WRITES))
        connection.commit()


if context.is_offline_mode():
    raise SystemExit("farm's migrations run on a connection; there is no offline mode")
given = context.config.attributes.get("connection")
if given is None:
    connect_and_migrate()
else:
    migrate(given)
