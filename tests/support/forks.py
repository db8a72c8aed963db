"""``farm`` in a process of its own that has imported what others wrote already.

Most of a short command's time goes into imports, and most of those are of SQLAlchemy, pydantic, typer and their like. A
process that has imported these, and nothing of farm's, is forked for each command: a new process in every other
respect, in which farm's own modules are imported as ever, with the environment, the folder and the streams of the one
who asks.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

OTHERS = (
    *("anyio", "asyncio", "blake3", "click", "concurrent.futures.thread", "ctypes", "email.message", "fractions"),
    *("getpass", "httpcore", "httpx", "importlib.metadata", "jinja2", "logging.config", "msgspec", "multiprocessing"),
    *("psutil", "psycopg", "pydantic.main", "pydantic.type_adapter", "pynvml", "rich.console", "rich.table", "secrets"),
    *("sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite", "sqlite3", "structlog", "tenacity"),
    *("tomllib", "typer.main", "uuid", "yaml", "zipfile", "zoneinfo"),
)
"""What a command imports, or may. Nothing that starts threads, or reads what differs between commands."""
STREAMS = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w"))


class Forks:
    """The process that is forked; started at the first command, and again by whoever was forked from its owner."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def run(
        self, words: Sequence[str], env: Mapping[str, str], cwd: Path, folder: Path, timeout: float
    ) -> tuple[int, str, str] | None:
        """Run ``farm WORDS`` to its end: its exit code as ``Popen`` has it, and what it said, by way of files in
        ``folder``. ``None``, and nothing is run, while another thread's command runs. What takes longer is killed:
        ``subprocess.TimeoutExpired``."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            said = [folder / name for name, _, _ in STREAMS[1:]]
            asked = {"words": words, "env": env, "cwd": str(cwd), "said": [str(path) for path in said]}
            answer = self._ask({**asked, "timeout": timeout})
            out, err = (path.read_text("utf-8") for path in said)
        finally:
            self._lock.release()
        if answer["late"]:
            raise subprocess.TimeoutExpired(list(words), timeout, out, err)
        return answer["code"], out, err

    def _ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        if self._process is None or self._owner != os.getpid():
            self._process, self._owner = self._started(), os.getpid()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def _started(self) -> subprocess.Popen[str]:
        """No child of ours: tests count those. It ends when nobody can ask it any more."""
        words, root = [sys.executable, "-m", __name__], Path(__file__).parents[2]
        parent = subprocess.Popen(words, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        parent.wait()
        return parent


def serve() -> None:
    """Fork for each line on stdin, and say on stdout how it ended."""
    if os.fork() != 0:
        os._exit(0)
    for name in OTHERS:
        with contextlib.suppress(ImportError):  # some come with extras
            importlib.import_module(name)
    assert "farm" not in sys.modules
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become_farm(asked)
        late = not ended(pid, asked["timeout"])
        if late:
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"code": code, "late": late}), flush=True)


def ended(pid: int, timeout: float) -> bool:
    """Wait for it."""
    watched = os.pidfd_open(pid)
    try:
        return bool(select.select([watched], [], [], timeout)[0])
    finally:
        os.close(watched)


def become_farm(asked: Mapping[str, Any]) -> NoReturn:
    """``python -m farm``, in the forked process."""
    for number, ((name, flags, mode), path) in enumerate(zip(STREAMS, [os.devnull, *asked["said"]], strict=True)):
        opened = os.open(path, flags | os.O_CREAT | (os.O_TRUNC if number else 0), 0o644)
        os.dup2(opened, number)
        os.close(opened)
        errors, lines = ("backslashreplace", 1) if name == "stderr" else ("strict", -1)
        stream = open(number, mode, lines, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115 - for good
        setattr(sys, name, stream)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.path[0] = asked["cwd"]
    sys.argv = ["farm", *asked["words"]]
    runpy.run_module("farm", run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    serve()
