"""A headless Chromium, spoken to over its DevTools pipe: what a page did, and what it drew.

No driver is needed: the protocol is JSON, each message ended by a zero byte, on file descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    """The browser of this machine, or the one that ``FARM_TEST_BROWSER`` names."""
    return os.environ.get("FARM_TEST_BROWSER") or next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Visit:
    """What happened while a page was open: script errors and refused content, requests beyond the page itself."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Page:
    """One tab."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader, self._writer = reader, writer
        self._count, self._session = 0, ""
        self.visit = Visit()
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, path: Path, width: int, height: int = 900) -> Visit:
        """Show a file at a screen's width, as a phone does below 600; what happened until it was loaded."""
        self.visit = Visit()
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._call("Page.navigate", url=path.as_uri())
        self._await("Page.loadEventFired")
        # Whatever a script put off for a moment has happened before this is answered.
        self.evaluate("new Promise(done => setTimeout(() => requestAnimationFrame(() => done(1)), 50))")
        self.visit.requests = [url for url in self.visit.requests if url != path.as_uri()]
        return self.visit

    def evaluate(self, expression: str) -> Any:
        found = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page."""
        found = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _call(self, method: str, **params: Any) -> Any:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        self._writer.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _await(self, event: str) -> None:
        while self._next().get("method") != event:
            pass

    def _next(self) -> dict[str, Any]:
        """The next message; what the page did is noted on the way."""
        raw = bytearray()
        while (byte := self._reader.read(1)) != b"\0":
            assert byte, "the browser is gone"
            raw += byte
        message: dict[str, Any] = json.loads(raw)
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.visit.errors.append(str(params["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.visit.errors.append(params["entry"]["text"])
        elif message.get("method") == "Network.requestWillBeSent":
            self.visit.requests.append(params["request"]["url"])
        return message


@contextmanager
def browser(command: str) -> Iterator[Page]:
    """A browser without a profile of its own, gone when the block ends."""
    (theirs_in, mine_out), (mine_in, theirs_out) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="farm-browser-", ignore_cleanup_errors=True) as profile:
        words = [command, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += ["--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking"]
        words += [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        launched = f"exec {' '.join(words)} 3<&{theirs_in} 4>&{theirs_out}"
        process = subprocess.Popen(
            ["bash", "-c", launched],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in), os.close(theirs_out)
        try:
            with os.fdopen(mine_in, "rb") as reader, os.fdopen(mine_out, "wb") as writer:
                yield Page(reader, writer)
        finally:
            process.kill()
            process.wait()
