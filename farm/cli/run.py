"""Runs a command line, and is the one place where errors become lines on stderr and exit codes (INTERFACE).

With ``--json`` an error is also the one document on stdout: ``{"error": {"type", "message", "hint", "exit_code"}}``,
so that a script need not parse what people read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from farm.errors import FarmError

INTERRUPTED = 130
USAGE = 2


def run(arguments: Sequence[str]) -> int:
    """Run ``farm`` with ``arguments``; returns the exit code. Nothing but ``--debug`` lets a traceback through."""
    open_streams()
    given, debug = _without_debug(arguments)
    with _signals():
        return _run(given, debug, "--json" in given)


def _run(given: Sequence[str], debug: bool, as_json: bool) -> int:
    try:
        code = _flushed(_invoke(given))
    except FarmError as error:
        if debug:
            raise
        code = _failed(error, as_json)
    except BrokenPipeError:
        code = _quiet_end()
    except SystemExit as end:
        # Typer turns a broken pipe into an exit of its own.
        code = _quiet_end() if isinstance(end.__context__, BrokenPipeError) else int(end.code or 0)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # the last resort: any other error is a defect, and is said to be one
        if debug:
            raise
        code = _defect(error, as_json)
    return code


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """``--debug`` is taken anywhere, before or after the command's name."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    given = [text for n, text in enumerate(arguments) if n >= end or text != "--debug"]
    return given, len(given) < len(arguments)


def _invoke(arguments: Sequence[str]) -> int:
    import typer

    from farm.cli.app import app_for

    # What click calls a usage error; typer has it under a private name only.
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    try:
        code = typer.main.get_command(app_for(arguments))(args=list(arguments), prog_name="farm", standalone_mode=False)
    except usage_error as error:
        raise _usage(error) from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    return int(code or 0)


def _usage(error: Any) -> FarmError:
    """A command line that cannot be understood, in two lines."""
    from farm.errors import BadInput

    context = getattr(error, "ctx", None)
    path = " ".join(context.command_path.split()) if context is not None else "farm"
    message = error.format_message().strip().rstrip(".") or "a command is missing"
    return BadInput(message[:1].lower() + message[1:], f"'{path} --help' says what can be given")


def _failed(error: FarmError, as_json: bool) -> int:
    """Two lines: what and why, then what to do next."""
    lines = [f"farm: {error.message}"] + ([f"      {error.hint}"] if error.hint else [])
    return _tell(lines, type(error).__name__, error.message, error.hint, error.exit_code, as_json)


def _defect(error: Exception, as_json: bool) -> int:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    message = f"a defect of farm's own: {what}"
    hint = "run it again with --debug for the traceback, and report it"
    return _tell([f"farm: {message}", f"      {hint}"], "Defect", message, hint, 1, as_json)


def _tell(lines: Sequence[str], kind: str, message: str, hint: str, code: int, as_json: bool) -> int:
    from farm.cli.output import note

    try:
        for line in lines:
            note(line)
        if as_json:
            import json

            document = {"error": {"type": kind, "message": message, "hint": hint or None, "exit_code": code}}
            print(json.dumps(document, indent=2), flush=True)
    except BrokenPipeError:
        _quiet_end()
    return code


def _flushed(code: int) -> int:
    """``code``, once all that was said is out; 1 where there is no room for it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _quiet_end()  # the reader has gone; how it all ended is still for the exit code to say
    except OSError as error:
        _quiet_end()
        print(f"farm: what was found could not be written: {error.strerror}", file=sys.stderr)
        return 1
    return code


def open_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr (by cron, by a daemon) empty ones, before a file
    of farm's own takes their place and gets what was meant for people."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


def _quiet_end() -> int:
    """The reader has gone (``farm ls | head``): nothing more can be said, and nothing went wrong."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    return 0


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """A polite end (a CI job that is cancelled) is treated as Ctrl-C is: builds are withdrawn, nothing is left over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
