"""What every store of small changing objects promises. A backend inherits this, and gives the fixture ``objects``;
one that processes may share inherits ``SharedObjectsContract`` and gives ``opening`` too."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from farm.errors import BadInput
from farm.store import Versioned, VersionedObjects

FOREIGN_NAMES = ["", ".", "..", "../x", "a/b", "/a", ".hidden", "a\0", "a\n", "a b", "ü", "a" * 201, "-x"]
LARGE = random.Random(6).randbytes(9 * 2**20 + 3)


def add(objects: VersionedObjects, name: str, items: set[str]) -> int:
    """Merge ``items`` into a set that many write to; how often somebody else was first."""
    lost = 0
    while True:
        now = objects.read_versioned(name)
        held = set(json.loads(now.data)) if now else set()
        if objects.write_if(name, json.dumps(sorted(held | items)).encode(), now and now.version) is not None:
            return lost
        lost += 1


def held(objects: VersionedObjects, name: str) -> set[str]:
    now = objects.read_versioned(name)
    return set(json.loads(now.data)) if now else set()


class ObjectsContract:
    def test_a_miss_is_a_value(self, objects: VersionedObjects) -> None:
        assert objects.read_versioned("nothing") is None

    @pytest.mark.parametrize("data", [b"", b"timings", LARGE], ids=["empty", "small", "large"])
    def test_what_was_written_is_read(self, objects: VersionedObjects, data: bytes) -> None:
        version = objects.write_if("one", data, None)
        assert version and objects.read_versioned("one") == Versioned(data, version)
        assert objects.read_versioned("another") is None

    def test_it_is_made_once(self, objects: VersionedObjects) -> None:
        first = objects.write_if("one", b"1", None)
        assert objects.write_if("one", b"2", None) is None
        assert objects.read_versioned("one") == (b"1", first)

    def test_it_is_replaced_by_who_saw_it_last(self, objects: VersionedObjects) -> None:
        first = objects.write_if("one", b"1", None)
        second = objects.write_if("one", b"2", first)
        assert second not in (None, first)
        assert objects.write_if("one", b"3", first) is None and objects.write_if("one", b"3", None) is None
        assert objects.read_versioned("one") == (b"2", second)

    def test_what_is_not_there_has_no_version(self, objects: VersionedObjects) -> None:
        version = objects.write_if("one", b"1", None)
        assert objects.write_if("another", b"2", version) is None and objects.read_versioned("another") is None

    def test_a_version_that_never_was(self, objects: VersionedObjects) -> None:
        objects.write_if("one", b"1", None)
        assert objects.write_if("one", b"2", "0" * 32) is None

    @pytest.mark.parametrize("name", FOREIGN_NAMES)
    def test_foreign_names_are_refused(self, objects: VersionedObjects, name: str) -> None:
        with pytest.raises(BadInput, match="no object's name"):
            objects.read_versioned(name)
        with pytest.raises(BadInput, match="no object's name"):
            objects.write_if(name, b"", None)

    @pytest.mark.parametrize("name", ["a", "0", "A.b_c+d=e-f", "a" * 200, "a~b".replace("~", ".")])
    def test_names(self, objects: VersionedObjects, name: str) -> None:
        assert objects.write_if(name, b"1", None) and objects.read_versioned(name)

    def test_one_of_many_makes_it(self, objects: VersionedObjects) -> None:
        made: list[str | None] = []
        threads = [
            threading.Thread(target=lambda n=n: made.append(objects.write_if("one", bytes([n]), None)))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(made) == 8 and len([version for version in made if version]) == 1

    def test_threads_lose_nothing_of_each_others(self, objects: VersionedObjects) -> None:
        lost: list[int] = []

        def work(number: int) -> None:
            lost.append(sum(add(objects, "set", {f"{number}-{count}"}) for count in range(8)))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(lost) == 4
        assert held(objects, "set") == {f"{number}-{count}" for number in range(4) for count in range(8)}


WRITER = """
import sys
sys.path.insert(0, {here!r})
from objects_contract import add
{opening}
print("ready", flush=True)
sys.stdin.readline()
print(sum(add(objects, "set", {{f"{{sys.argv[1]}}-{{count}}"}}) for count in range(int(sys.argv[2]))), flush=True)
"""


class SharedObjectsContract(ObjectsContract):
    """``opening``: statements that set ``objects`` in another process."""

    def start(self, opening: str, name: str, count: int) -> subprocess.Popen[str]:
        body = WRITER.format(here=str(Path(__file__).parent), opening=opening)
        process = subprocess.Popen([sys.executable, "-c", body, name, str(count)], stdin=-1, stdout=-1, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    def test_processes_lose_nothing_of_each_others(self, objects: VersionedObjects, opening: str) -> None:
        writers = [self.start(opening, str(number), 12) for number in range(4)]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        lost = [int(writer.communicate(timeout=120)[0]) for writer in writers]
        assert held(objects, "set") == {f"{number}-{count}" for number in range(4) for count in range(12)}
        assert sum(lost) > 0, "they never met"

    @pytest.mark.chaos
    def test_who_is_killed_stops_nobody_and_leaves_it_whole(self, objects: VersionedObjects, opening: str) -> None:
        for number in range(3):
            writer = self.start(opening, str(number), 100_000)
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
            time.sleep(0.1 + 0.05 * number)
            writer.send_signal(signal.SIGKILL)
            writer.communicate(timeout=30)
            before = held(objects, "set")
            add(objects, "set", {f"after {number}"})
            assert held(objects, "set") == before | {f"after {number}"}
        assert len(held(objects, "set")) > 3
