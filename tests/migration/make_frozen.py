"""Write ``frozen_REVISION.sql``: a small farm's database as SQL text. Run once, when a revision is released; the
file never changes afterwards, since it stands for databases that are out there.

    python tests/migration/make_frozen.py 0001
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "contract"))


def fill(url: str) -> None:
    """Something in every table."""
    from contract_measuring import ask, measurement
    from index_things import engine_of, failure, lease, parts_of, queued, request

    from farm.builds import FailureKind
    from farm.db.index import SqlIndex
    from farm.index import StoredProgram, Sweep, Trial, Worker
    from farm.leaving import Pinned
    from farm.making import StoredForm
    from farm.tokens import Token
    from farm.usage import Usage

    index = SqlIndex(url)
    index.register(Worker("host:1:a", "host", 1, 5.0, ("c",), {"cores": 2}))
    index.put_program(StoredProgram("sha256:p", "a.pt2", "pt2", 10, "sha256:g", "b3:w"))
    index.put_form(StoredForm("sha256:p", "torch 2.13", "sha256:o", None, {"graph": "m.onnx"}))
    index.record_parts([parts_of(request("unbuilt"))])
    queued(index, request("built"))
    given = lease(index)
    index.append_log(given, "the log\n")
    index.succeed(given, engine_of(given))
    use = Usage()
    use.used(given.build.request.recipe, "main")
    use.of_key(given.build.request.key, {"hits": 1.0})
    index.add_usage(use)
    queued(index, request("failed"))
    index.fail(lease(index), failure(FailureKind.PERMANENT), None)
    queued(index, request("running"))
    lease(index, "host:1:a")
    build = queued(index, request("queued"))
    trial = Trial(0, "a.pt2", "sm_89", {"optimization_level": 3}, "sha256:k", "sha256:r", "new", build.id)
    index.put_sweep(Sweep("sfrozen", 0.0, {"grid": {}}, (trial,)))
    index.count("hit", {"n": 2, "seconds": 1.5})
    index.record_measurement(measurement())
    index.await_measuring([ask()])
    index.put_note("store", "frozen")
    index.add_token(Token("frozenaaaa", "ci", "0" * 64), None)
    (engine,) = index.engines()
    index.put_pin("mine", [Pinned(engine.recipe, "main", engine.digest)], None, 60.0)
    index.put_pin("former", [Pinned(engine.recipe, "main", engine.digest)], None, 60.0)
    index.drop_pin("former", 60.0)
    index.close()


def main(revision: str) -> None:
    from farm.db.migrate import HEAD

    if revision != HEAD:
        raise SystemExit(f"this checkout makes databases of revision {HEAD}: {revision} was frozen long ago")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "farm.db"
        fill(f"sqlite:///{path}")
        with sqlite3.connect(path) as connection:
            text = "\n".join(connection.iterdump()) + "\n"
    (HERE / f"frozen_{revision}.sql").write_text(text, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
