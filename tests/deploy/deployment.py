"""Readers of what is in ``deploy/``: Compose with its variables filled in, Dockerfiles, systemd units, variables."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from farm.config import Config

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
UNITS = ("farm-worker@.service", "farm-cpu-worker.service", "farm-beat.service", "farm-serve.service")
DOCKERFILES = ("cpu.Dockerfile", "gpu.Dockerfile")

KNOWN_VARIABLES = {f"FARM_{item.name.upper()}" for item in fields(Config)}
"""Every variable that farm reads: ``farm.config`` is the sole reader of the environment."""


# -- Compose -------------------------------------------------------------------------------------------------


class Unset(Exception):
    """A variable that Compose demands has no value."""


def interpolate(text: str, variables: dict[str, str]) -> str:
    """``text`` with Compose's ``$$``, ``${NAME}``, ``${NAME:-…}``, ``${NAME-…}`` and ``${NAME:?…}`` replaced."""
    done, at = "", 0
    while at < len(text):
        if text.startswith("$$", at):
            done, at = done + "$", at + 2
        elif text.startswith("${", at):
            end = closing(text, at + 2)
            done, at = done + value_of(text[at + 2 : end], variables), end + 1
        else:
            assert text[at] != "$", f"a bare $ in {text!r}"
            done, at = done + text[at], at + 1
    return done


def closing(text: str, at: int) -> int:
    """Where the brace that was opened before ``at`` is closed."""
    depth = 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return at - 1


def value_of(inner: str, variables: dict[str, str]) -> str:
    found = re.fullmatch(r"(\w+)(?:(:?[-?])(.*))?", inner, re.DOTALL)
    assert found, f"not a variable: {inner!r}"
    name, how, rest = found[1], found[2] or "", found[3] or ""
    value = variables.get(name)
    if value or (value is not None and not how.startswith(":")):
        return value
    if how.endswith("?"):
        raise Unset(name)
    return interpolate(rest, variables)


def filled(value: Any, variables: dict[str, str]) -> Any:
    """A document with every string in it interpolated."""
    if isinstance(value, str):
        return interpolate(value, variables)
    if isinstance(value, list):
        return [filled(item, variables) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, variables) for key, item in value.items()}
    return value


def compose(variables: dict[str, str]) -> dict[str, Any]:
    """compose.yaml, its anchors merged and its variables filled in."""
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    made = filled(document, variables)
    assert isinstance(made, dict)
    return made


def seconds(duration: str) -> float:
    """``1m30s`` → 90."""
    parts = re.findall(r"(\d+)(ms|s|m|h)", duration)
    assert parts and "".join(map("".join, parts)) == duration, duration
    return sum(int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)


# -- Dockerfiles ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile: ``RUN``, its text without line breaks, and the number of its stage."""

    name: str
    text: str
    stage: int


def dockerfile(name: str) -> list[Instruction]:
    lines = [line for line in (DEPLOY / name).read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    logical = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    stage, found = -1, []
    for line in filter(None, map(str.strip, logical.splitlines())):
        word, _, text = line.partition(" ")
        stage += word == "FROM"
        found.append(Instruction(word, text.strip(), stage))
    return found


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps ``path`` from the build: the last pattern that matches it decides."""
    result = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        kept, pattern = line.startswith("!"), line.strip().lstrip("!")
        if matches(pattern, path):
            result = not kept
    return result


def matches(pattern: str, path: str) -> bool:
    """Docker's patterns, as far as the file uses them: a match of a folder is one of all in it."""
    made = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.fullmatch(f"{made}(?:/.*)?", path) is not None


# -- systemd and variables -----------------------------------------------------------------------------------


def unit(name: str) -> dict[str, list[str]]:
    """``Section.Key`` → its values in order; an empty assignment empties the list, as systemd has it."""
    section, found = "", {}
    for line in (DEPLOY / "systemd" / name).read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, f"{name}: not an assignment: {line}"
            found.setdefault(f"{section}.{key}", []).append(value)
    return found


def env_file(path: Path) -> dict[str, str]:
    """The assignments of an environment file; those that are commented out as well."""
    found = {}
    for line in path.read_text("utf-8").splitlines():
        match = re.fullmatch(r"(?:# ?)?([A-Z][A-Z0-9_]+)=(.*)", line)
        if match:
            found[match[1]] = match[2]
    return found
