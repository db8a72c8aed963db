"""The index on PostgreSQL keeps the contract."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from contract_builds import AskingContract, MakingContract
from contract_engines import EnginesContract
from contract_fleet import FleetContract
from contract_keeping import KeepingContract
from contract_leaving import LeavingContract
from contract_machine import SETTINGS, BuildsMachine
from contract_measuring import MeasuringContract
from contract_namespaces import NamespacesContract
from contract_races import RacesContract, together
from contract_serving import ServingContract
from contract_upkeep import UpkeepContract
from contract_usage import UsageContract
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from index_things import (
    CAPABILITY,
    EXPIRED,
    TTL,
    claim,
    digest,
    engine_of,
    failure,
    lease,
    offer,
    parts_of,
    queued,
    request,
    state,
)
from servers import Server, empty
from sqlalchemy import Connection, event

from farm.db import engines, leasing, statements
from farm.db.claims import Claiming
from farm.db.index import SqlIndex
from farm.db.migrate import needs_upgrade, upgrade
from farm.db.models import WHERE, metadata
from farm.db.session import make_engine, parse_url
from farm.errors import Unavailable
from farm.index import Adoption, Claimed, WantedPortable
from farm.portability import Serves
from tests.conftest import eventually

KEEPALIVE = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)

psycopg = pytest.importorskip("psycopg")


@pytest.fixture
def url(postgresql_url: str) -> str:
    return postgresql_url


@pytest.fixture
def index(url: str) -> Iterator[SqlIndex]:
    index = SqlIndex(url)
    yield index
    index.close()


def _socket_of(connection: Connection) -> socket.socket:
    raw = connection.connection.driver_connection
    assert raw is not None
    return socket.socket(fileno=os.dup(raw.fileno()))


class TestEngines(EnginesContract):
    pass


class TestFleet(FleetContract):
    pass


class TestServing(ServingContract):
    pass


class TestAsking(AskingContract):
    pass


class TestMaking(MakingContract):
    pass


class TestKeeping(KeepingContract):
    pass


class TestMeasuring(MeasuringContract):
    pass


class TestUpkeep(UpkeepContract):
    pass


class TestLeaving(LeavingContract):
    pass


class TestUsage(UsageContract):
    pass


class TestNamespaces(NamespacesContract):
    pass


class TestRaces(RacesContract):
    pass


def test_any_order_of_calls_keeps_to_the_model(migrated_postgresql: str) -> None:
    class Machine(BuildsMachine):
        @staticmethod
        def open_index() -> SqlIndex:
            empty(migrated_postgresql)
            return SqlIndex(migrated_postgresql)

    run_state_machine_as_test(Machine, settings=settings(SETTINGS, max_examples=10))


class TestBetweenStatements:
    """What another transaction may commit between two statements of a claim, which on SQLite has the file to itself."""

    @pytest.fixture
    def other(self, url: str) -> Iterator[SqlIndex]:
        other = SqlIndex(url)
        yield other
        other.close()

    def interrupt(self, monkeypatch: pytest.MonkeyPatch, step: str, act: Callable[[], object]) -> None:
        """Run ``act`` once, just before the claim's ``step``."""
        whole, acts = getattr(Claiming, step), [act]

        def interrupted(self: Claiming, *args: Any) -> Any:
            if acts:
                acts.pop()()
            return whole(self, *args)

        monkeypatch.setattr(Claiming, step, interrupted)

    @pytest.mark.parametrize("step", ["_answer_known", "_queue", "_find_active"])
    def test_it_succeeds(self, index: SqlIndex, other: SqlIndex, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        queued(index)
        given = lease(index)
        engine = engine_of(given)
        self.interrupt(monkeypatch, step, lambda: other.succeed(given, engine))
        claimed = claim(index, waiter="you")
        assert claimed.outcome is Claimed.DONE
        assert claimed.engine and claimed.engine.digest == engine.digest
        assert [build.id for build in index.builds()] == [given.build.id]

    @pytest.mark.parametrize("step", ["_answer_known", "_queue", "_find_active"])
    def test_it_fails_for_good(
        self, index: SqlIndex, other: SqlIndex, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        queued(index)
        given = lease(index)
        self.interrupt(monkeypatch, step, lambda: other.fail(given, failure(), None))
        claimed = claim(index, waiter="you")
        assert claimed.outcome is Claimed.FAILED and claimed.build and claimed.build.id == given.build.id
        assert len(index.builds()) == 1

    @pytest.mark.parametrize("step", ["_answer_known", "_queue", "_find_active"])
    def test_it_is_cancelled(
        self, index: SqlIndex, other: SqlIndex, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        build = queued(index)
        self.interrupt(monkeypatch, step, lambda: other.leave("me"))
        claimed = claim(index, waiter="you")
        assert claimed.outcome is Claimed.NEW and claimed.build and claimed.build.id != build.id
        assert state(index, claimed.build.id) == "queued"

    @pytest.mark.parametrize("step", ["_answer_known", "_queue"])
    def test_it_is_asked_for(
        self, index: SqlIndex, other: SqlIndex, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        self.interrupt(monkeypatch, step, lambda: monkeypatch.undo() or queued(other, waiter="me"))
        claimed = claim(index, waiter="you")
        assert claimed.outcome is Claimed.JOINED and claimed.build and claimed.build.waiters == 2

    def test_its_lease_runs_out_and_it_is_leased_again(
        self, index: SqlIndex, other: SqlIndex, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build = queued(index)
        lease(index, ttl=EXPIRED)
        self.interrupt(monkeypatch, "_find_active", lambda: (other.reap(), lease(other)))
        claimed = claim(index, waiter="you")
        assert claimed.outcome is Claimed.JOINED and claimed.build and claimed.build.id == build.id


class TestServer:
    """What is a server's own: it is migrated by hand, it can be away, and it cuts connections."""

    def test_a_database_without_tables_says_what_to_do(self, postgresql: Server) -> None:
        url = postgresql.database()
        assert needs_upgrade(url)
        with pytest.raises(Unavailable, match="farm db upgrade"):
            SqlIndex(url)
        assert upgrade(url) is True
        assert needs_upgrade(url) is False and upgrade(url) is False
        SqlIndex(url).close()

    def test_many_upgrade_at_once(self, postgresql: Server) -> None:
        url = postgresql.database()
        assert sorted(together(lambda n: upgrade(url), 4)) == [False, False, False, True]

    def test_the_tables_are_those_of_the_models(self, migrated_postgresql: str) -> None:
        with make_engine(parse_url(migrated_postgresql)).connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []
            made = dict(connection.exec_driver_sql("SELECT indexname, indexdef FROM pg_indexes").all())
        declared = [index for table in metadata.tables.values() for index in table.indexes]
        assert {str(index.name) for index in declared} <= set(made)
        assert all(("WHERE" in made[str(index.name)]) == (WHERE in index.info) for index in declared)

    def test_a_newer_schema_is_refused(self, postgresql: Server) -> None:
        url = postgresql.database()
        upgrade(url)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        for act in (needs_upgrade, upgrade, SqlIndex):
            with pytest.raises(Unavailable, match="newer farm"):
                act(url)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"port": 1}, "not listening"),
            ({"database": "no_such_database"}, "create the database"),
            ({"host": "no-such-host.invalid"}, "correct FARM_DATABASE_URL"),
            ({"username": "no_such_user"}, "does not know the user"),
        ],
    )
    def test_a_server_that_cannot_be_had(self, migrated_postgresql: str, change: dict[str, Any], says: str) -> None:
        url = parse_url(migrated_postgresql).set(password="secret", **change)
        with pytest.raises(Unavailable, match=says) as caught:
            SqlIndex(url.render_as_string(hide_password=False))
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("option", ["nosuch=1", "sslmode=bogus"])
    def test_options_that_mean_nothing(self, migrated_postgresql: str, option: str) -> None:
        with pytest.raises(Unavailable) as caught:
            SqlIndex(f"{migrated_postgresql}?{option}")
        assert "FARM_DATABASE_URL" in caught.value.hint

    def test_what_the_url_asks_of_a_session_is_added_to_what_farm_asks(self, migrated_postgresql: str) -> None:
        """A schema of one's own, say: it must not be ignored."""
        url = f"{migrated_postgresql}?options=-csearch_path%3Delsewhere,public&connect_timeout=7"
        database = SqlIndex(url).db
        for engine in (database.engine, database._looker):
            with engine.connect() as connection:
                shown = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("search_path", "jit")]
                told = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
                assert shown == ["elsewhere,public", "off"] and told["connect_timeout"] == "7"
        database.close()

    def test_a_server_that_vanishes_without_a_word_is_given_up_within_a_minute(self, url: str) -> None:
        """What the kernel is told of the very connection: to pull a server's plug is more than a test can do."""
        tcp = socket.IPPROTO_TCP
        for engine in (SqlIndex(url).db.engine, SqlIndex(url).db._looker):
            with engine.connect() as connection, _socket_of(connection) as link:
                idle, every, times = (link.getsockopt(tcp, name) for name in KEEPALIVE)
                assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert idle + every * times <= 60
                assert 0 < link.getsockopt(tcp, socket.TCP_USER_TIMEOUT) <= 60_000
            engine.dispose()

    def test_connections_that_were_cut_are_made_anew(self, index: SqlIndex, url: str) -> None:
        build = queued(index)
        for _ in range(3):
            cut(url)
            assert index.build(build.id) is not None
            cut(url)
            index.count("hit", {"n": 1})
        assert index.stats()["counters"] == {"hit": {"n": 3}}

    def test_a_connection_cut_inside_a_transaction_changes_nothing_twice(self, index: SqlIndex, url: str) -> None:
        tries = []

        def work(connection: Connection) -> int:
            index._count(connection, "hit", {"n": 1})
            tries.append(1)
            if len(tries) == 1:
                cut(url)
            index._count(connection, "hit", {"seconds": 1})
            return len(tries)

        assert index.db.run(work, writes=True) == 2
        assert index.stats()["counters"] == {"hit": {"n": 1, "seconds": 1}}

    def test_a_connection_cut_before_the_commit_says_that_nobody_knows(self, index: SqlIndex, url: str) -> None:
        with pytest.raises(Unavailable, match="may or may not"):
            index.db.run(lambda connection: (index._count(connection, "hit", {"n": 1}), cut(url)), writes=True)
        assert index.stats()["counters"] == {}

    def test_a_claim_whose_commit_was_cut_off_is_made_again(self, index: SqlIndex, url: str) -> None:
        """Whether it had been committed or not: whoever asks twice waits once, for one build."""
        cuts = []

        def once(_connection: Connection) -> None:
            if not cuts:
                cuts.append(1)
                cut(url)

        event.listen(index.db.engine, "commit", once)
        (claim,) = index.claim_or_join([request()], "me")
        event.remove(index.db.engine, "commit", once)
        assert cuts and claim.build is not None
        (again,) = index.claim_or_join([request()], "me")
        assert again.outcome is Claimed.JOINED and again.build is not None
        assert (again.build.id, again.build.waiters) == (claim.build.id, 1)

    def test_deadlocks_are_run_again(self, index: SqlIndex) -> None:
        """Two transactions that lock two rows crosswise: PostgreSQL ends one, which then runs again."""
        index.count("a", {"n": 0})
        index.count("b", {"n": 0})
        met = threading.Barrier(2)

        def work(number: int) -> None:
            first = [True]

            def cross(connection: Connection) -> None:
                one, other = ("a", "b") if number else ("b", "a")
                index._count(connection, one, {"n": 1})
                if first.pop() if first else False:
                    met.wait(30)
                index._count(connection, other, {"n": 1})

            index.db.run(cross, writes=True)

        together(work, 2)
        assert index.stats()["counters"] == {"a": {"n": 2}, "b": {"n": 2}}

    def test_long_inserts_whose_connection_is_cut_are_made_again_from_their_beginning(
        self, index: SqlIndex, url: str
    ) -> None:
        requests, inserts = [request(n) for n in range(2500)], []

        def second(*args: Any) -> None:
            if args[2].startswith("INSERT INTO builds"):
                inserts.append(1)
                if len(inserts) == 2:
                    cut(url)

        event.listen(index.db.engine, "before_cursor_execute", second)
        claims = index.claim_or_join(requests, "me")
        event.remove(index.db.engine, "before_cursor_execute", second)
        assert len(inserts) == 2 + 3
        assert [claim.build and claim.build.request.model for claim in claims] == [one.model for one in requests]
        assert len({build.id for build in index.builds(limit=9999)}) == 2500
        assert len(index.lease(offer(), TTL, 2500)) == 2500

    def test_a_build_that_ends_while_its_recipe_is_taken_over_crosses_no_locks(self, index: SqlIndex, url: str) -> None:
        """Both put the engine first, and then what it serves: who comes second waits, and is not run again."""
        queued(index)
        held = lease(index)
        mine = replace(engine_of(held), serves=(Serves("family", "sm_89", "00010", False, 1),))
        told = {**mine.manifest, "key": request().key, "recipe": mine.recipe, "weights": "b3:w", "manifest": "sha256:m"}
        there, faults, other = threading.Event(), list[object](), SqlIndex(url)

        def before(*args: Any) -> None:
            if "serving" in args[2] and not there.is_set():
                there.set()
                wait_for_a_lock(url)

        event.listen(other.db.engine, "before_cursor_execute", before)
        for engine in (other.db.engine, index.db._by_index):
            event.listen(engine, "handle_error", lambda context: faults.append(context.original_exception))
        theirs = replace(mine, digest=digest("theirs"), manifest=told)
        adopting = threading.Thread(target=other.adopt, args=(theirs, Adoption(parts_of(request()), CAPABILITY)))
        adopting.start()
        assert there.wait(10) and index.succeed_all([(held, mine)]) == [True]
        adopting.join()
        other.close()
        wanted = WantedPortable("family", ("sm_89",), "00010", False)
        assert [engine.digest for engine in index.find_portable(wanted, ["main"])] == [mine.digest]
        assert faults == []

    def test_a_build_that_ends_while_the_former_engine_is_collected_crosses_no_locks(
        self, index: SqlIndex, url: str
    ) -> None:
        """Both lock the engine before they condemn what it names."""
        queued(index)
        former = lease(index)
        index.succeed(former, engine_of(former, "former"))
        claim(index, force=True)
        held = lease(index)
        mine, ended = engine_of(held, "newer"), list[bool]()
        ending = threading.Thread(target=lambda: ended.extend(index.succeed_all([(held, mine)])))
        with psycopg.connect(url) as collector:
            collector.execute("SET LOCAL lock_timeout = '300ms'")  # before the server looks for deadlocks
            collector.execute("SELECT FROM engines FOR UPDATE")
            ending.start()
            wait_for_a_lock(url)
            gone = collector.execute("DELETE FROM engines RETURNING digest").fetchone()
            collector.execute("INSERT INTO condemned VALUES (%s, 'engine', 1, 0, 0, false)", gone)
        ending.join()
        assert ended == [True] and [engine.digest for engine in index.engines()] == [mine.digest]

    def test_a_stopped_client_cannot_hold_a_lock_for_ever(self, index: SqlIndex) -> None:
        """SIGSTOP inside a transaction: the server ends the session, by a setting that each connection brings."""
        with index.db.engine.connect() as connection:
            timeout = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one()
        assert timeout not in ("0", "")

    @pytest.mark.parametrize("analysed", [False, True])
    def test_leasing_reads_the_queue_in_its_order(self, index: SqlIndex, url: str, analysed: bool) -> None:
        index.claim_or_join([request(n) for n in range(2000)], "me")
        if analysed:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("ANALYZE builds")
        wanted = leasing._wanted(offer(), CAPABILITY, 1)
        plan = explain(index, index.db.made(statements.best_due), wanted)
        assert "ix_builds_due" in plan and "Sort" not in plan

    def test_a_lease_looks_for_what_it_chose_by_its_id(self, index: SqlIndex, url: str) -> None:
        """The server was last told of the table when nothing waited, and takes the queue for empty."""
        index.claim_or_join([request(n) for n in range(300)], "me")
        ended = index.lease(offer(), TTL, 300)
        assert all(index.succeed_all([(one, engine_of(one)) for one in ended]))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE builds")
        index.claim_or_join([request(n) for n in range(300, 2300)], "me")
        wanted = {**leasing._wanted(offer(), CAPABILITY, 30), "the_worker": "w", "the_ttl": TTL}
        plan = explain(index, index.db.made(statements.lease), wanted)
        assert "ix_builds_due" in plan and "ix_builds_tenant" not in plan
        assert re.search(r"pk_builds on builds builds_1 .*\n *Index Cond: \(id = chosen.id\)", plan), plan

    @pytest.mark.parametrize("analysed", [False, True])
    def test_look_ups_join_by_index(self, index: SqlIndex, url: str, analysed: bool) -> None:
        index.record_parts([parts_of(request(n)) for n in range(2000)])
        if analysed:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("ANALYZE key_parts, engines")
        params = {"the_keys": [request(1).key], "the_weights": ["w"], "the_namespaces": ["main"]}
        plan = explain(index, index.db.made(engines._best_of_keys), params)
        assert "pk_key_parts" in plan and "pk_engines" in plan
        assert "Hash" not in plan and "Seq Scan" not in plan


def explain(index: SqlIndex, statement: Any, params: dict[str, Any]) -> str:
    with index.db.engine.connect() as connection:
        index.db.use_indexes(connection)
        compiled = statement.compile(dialect=connection.dialect)
        raw = connection.connection.driver_connection
        assert raw is not None
        rows = raw.execute(f"EXPLAIN {compiled}", compiled.construct_params(params))
        return "\n".join(row[0] for row in rows)


def wait_for_a_lock(url: str) -> None:
    """Until some session of the database waits for another's lock."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(url, autocommit=True) as connection:
        eventually(lambda: connection.execute(waits).fetchone() != (0,))


def cut(url: str) -> None:
    """End every other session of the database, as a restart would."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
