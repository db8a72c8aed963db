"""Bounds on what a child may say: a log of which head and tail are kept, and lines of limited length. Pure."""

from __future__ import annotations

from collections.abc import Iterator

KIB = 1024
HEAD = 128 * KIB
TAIL = 128 * KIB
LONGEST_LINE = 1024 * KIB


class BoundedLog:
    """A log of any length in bounded memory: its first ``head`` bytes, a note, and its last ``tail`` bytes.

    ``feed`` returns what may be passed on at once, ``finish`` what is left; joined, they are ``text()``. Text
    that is not UTF-8 is kept, its bad bytes replaced.
    """

    def __init__(self, head: int = HEAD, tail: int = TAIL) -> None:
        self._head_left = head
        self._tail_size = tail
        self._passed: list[str] = []
        self._tail = bytearray()
        self._left_out = 0
        self._pending = b""

    def feed(self, data: bytes) -> str:
        """Take more of the log; the whole lines of it that still belong to the head."""
        if self._head_left <= 0:
            self._keep(data)
            return ""
        self._pending += data
        whole, _, rest = self._pending.rpartition(b"\n")
        if len(self._pending) >= self._head_left:
            cut = self._head_left if not whole else min(len(whole) + 1, self._head_left)
            passed, rest = self._pending[:cut], self._pending[cut:]
            self._head_left = 0
            self._pending = b""
            self._keep(rest)
            return self._pass(passed)
        if not whole and not data.endswith(b"\n"):
            return ""
        self._pending = rest
        passed = whole + b"\n"
        self._head_left -= len(passed)
        return self._pass(passed)

    def finish(self) -> str:
        """What has not been passed on: the note of what is left out, and the tail."""
        rest = self._pending + bytes(self._tail)
        self._pending = b""
        self._tail.clear()
        if not rest:
            return ""
        note = f"\n… {self._left_out:,} bytes of the log left out …\n" if self._left_out else ""
        self._left_out = 0
        return self._pass(rest, note)

    def text(self) -> str:
        return "".join(self._passed)

    def _keep(self, data: bytes) -> None:
        self._tail += data
        excess = len(self._tail) - self._tail_size
        if excess > 0:
            del self._tail[:excess]
            self._left_out += excess

    def _pass(self, data: bytes, note: str = "") -> str:
        text = note + data.decode("utf-8", "replace")
        self._passed.append(text)
        return text


class Lines:
    """Cuts bytes into lines; one longer than ``longest`` is dropped whole."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._rest = b""
        self._dropping = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that ``data`` completes, without their ends."""
        self._rest += data
        while True:
            line, end, rest = self._rest.partition(b"\n")
            if not end:
                break
            self._rest = rest
            if not self._dropping and len(line) <= self._longest:
                yield line
            self._dropping = False
        if len(self._rest) > self._longest:
            self._rest, self._dropping = b"", True
