"""A manifest's models as files on this machine: fetched from a URL, or made by the user's own script, in a child.

Nothing of a model is executed here: a script is, and it is the user's, on the user's machine. What is fetched or made
lies in a folder of this process, which is gone when it ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit

from farm.errors import BadProgram, BuildFailed, Unavailable
from farm.prebuilds.entries import Model
from farm.scratch import remove_orphans

SCRIPT_SECONDS = 1800.0
"""What a script may take where nothing else limits it."""
SOCKET_SECONDS = 60.0
CHUNK = 1 << 20
SHOWN = 300
"""Characters of a script's last words that are repeated."""
SUFFIXES = (".pt2", ".onnx")


class ModelSources:
    """``left`` says how many seconds there still are (``None``: no limit); ``tell`` takes a line for whoever waits."""

    def __init__(
        self, folder: Path, left: Callable[[], float | None] = lambda: None, tell: Callable[[str], None] = print
    ) -> None:
        self._folder, self._left, self._tell = folder, left, tell

    def get(self, model: Model) -> str:
        """The path of the model's file. ``BadProgram``, ``BuildFailed`` or ``Unavailable`` say why there is none."""
        source = model.source
        if source.url:
            return str(self._fetched(model))
        if source.script:
            return str(self._made(model))
        if not Path(source.path).exists():
            raise BadProgram(f"{source.path}: there is no such file", "correct its path in the manifest")
        return source.path

    def _home(self, model: Model) -> Path:
        home = self._folder / model.name
        home.mkdir(parents=True, exist_ok=True)
        return home

    # -- URLs --------------------------------------------------------------------------------------------------

    def _fetched(self, model: Model) -> Path:
        url = model.source.url
        suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
        path = self._home(model) / f"{model.name}{suffix if suffix in SUFFIXES else '.pt2'}"
        self._tell(f"fetching {model.name} from {shown_url(url)}")
        try:
            with urllib.request.urlopen(url, timeout=self._patience()) as answer, path.open("wb") as file:
                digest = _copied(answer, file)
        except (OSError, ValueError) as error:
            # An answer that is an error says its number only as a whole.
            reason = error if isinstance(error, HTTPError) else getattr(error, "reason", None) or error
            raise Unavailable(
                f"{shown_url(url)} cannot be fetched: {reason}", "check the URL, and ask again"
            ) from error
        if model.source.sha256 and digest != model.source.sha256:
            raise BadProgram(
                f"{shown_url(url)} has the SHA-256 {digest}, and the manifest says {model.source.sha256}",
                "whoever serves it has changed it; correct the manifest if that is right",
            )
        return path

    def _patience(self) -> float:
        left = self._left()
        return SOCKET_SECONDS if left is None else max(0.1, min(SOCKET_SECONDS, left))

    # -- scripts -----------------------------------------------------------------------------------------------

    def _made(self, model: Model) -> Path:
        file, _, function = model.source.script.rpartition(":")
        if not Path(file).is_file():
            raise BadProgram(f"{file}: there is no such file", "correct the model's script in the manifest")
        self._tell(f"exporting {model.name} with {file}:{function}")
        home = self._home(model)
        command = [
            sys.executable,
            "-m",
            "farm.prebuilding.script_child",
            str(Path(file).resolve()),
            function,
            str(home),
            model.name,
        ]
        code, out, err = _run(command, Path(file).parent, self._script_seconds())
        if code is None:
            raise BuildFailed(
                f"{model.source.script} took more than {self._script_seconds():.0f} s", "give it more time"
            )
        kept = Path((out.strip().splitlines() or [""])[-1])
        if code != 0 or kept.parent != home or not kept.is_file():
            raise BuildFailed(
                f"{model.source.script} made no model: {_last_words(err, code)}", "run the function yourself"
            )
        return kept

    def _script_seconds(self) -> float:
        left = self._left()
        return SCRIPT_SECONDS if left is None else max(1.0, left)


def _run(command: list[str], folder: Path, seconds: float) -> tuple[int | None, str, str]:
    """Exit status (``None``: it took too long) and both streams; nothing that it started outlives it."""
    # Files, not pipes: a grandchild that keeps a pipe open would be waited for.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return code, _read(out), _read(err)


def _read(file: IO[bytes]) -> str:
    """The end of what was written: whoever prints a gigabyte is not read whole."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 65_536))
    return bytes(file.read()).decode("utf-8", "replace")


def _last_words(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:SHOWN] if lines else f"it ended with status {code}"


def _copied(answer: IO[bytes], file: IO[bytes]) -> str:
    hasher = hashlib.sha256()
    while chunk := answer.read(CHUNK):
        hasher.update(chunk)
        file.write(chunk)
    return hasher.hexdigest()


def shown_url(url: str) -> str:
    """A URL without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


@contextlib.contextmanager
def model_sources(
    scratch: Path, left: Callable[[], float | None] = lambda: None, tell: Callable[[str], None] = print
) -> Iterator[ModelSources]:
    """Sources whose files lie below ``scratch`` until the block ends. ``Unavailable`` when they cannot."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        remove_orphans(scratch, "models-*-*")
        folder = Path(tempfile.mkdtemp(prefix=f"models-{os.getpid()}-", dir=scratch))
    except OSError as error:
        raise Unavailable(f"{scratch} cannot be used: {error.strerror}", "point FARM_HOME elsewhere") from error
    try:
        yield ModelSources(folder, left, tell)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
