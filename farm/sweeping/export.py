"""A sweep's trials as files for other tools: CSV, JSON, Parquet; and its answer as a manifest."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from farm.errors import BadConfig, BadInput
from farm.sweeping.answer import answers, manifest
from farm.sweeping.results import SweepResults, TrialResult
from farm.sweeps.objectives import METRICS

FORMATS = ("csv", "json", "parquet", "yaml")


def exported(found: SweepResults, format: str) -> bytes:
    """The file's bytes: one row for each trial; ``yaml`` is a ``farm.yaml`` for the recommended engines.

    ``BadInput`` for an unknown format, or where nothing can be recommended; ``BadConfig`` where Parquet needs pyarrow.
    """
    if format == "csv":
        return csv_text(found).encode()
    if format == "json":
        document = found.as_json() | {"answers": [answer.as_json() for answer in answers(found)]}
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
    if format == "parquet":
        return _parquet(found)
    if format == "yaml":
        text = manifest(found)
        if not text:
            raise BadInput(f"sweep {found.sweep.id} has nothing to recommend", f"'farm sweep show {found.sweep.id}'")
        return text.encode()
    raise BadInput(f"there is no format '{format}'", f"known: {', '.join(FORMATS)}")


def rows(found: SweepResults) -> list[dict[str, Any]]:
    """Flat rows with the same columns: settings by their names, values by their metrics."""
    names = list(dict.fromkeys(name for result in found.trials for name in result.trial.settings))
    return [_row(result, names) for result in found.trials]


def _row(result: TrialResult, names: list[str]) -> dict[str, Any]:
    values: Mapping[str, float] = result.values
    trial = result.trial
    return {
        "number": trial.number,
        "model": trial.model,
        "target": trial.target,
        **{f"setting.{name}": trial.settings.get(name) for name in names},
        "outcome": result.outcome,
        "same_as": result.same_as,
        "key": trial.key or None,
        "recipe": trial.recipe or None,
        "engine": result.engine.digest if result.engine else None,
        **{name: values.get(name) for name in METRICS},
        "device": result.measured.device if result.measured else None,
        "seconds": round(result.seconds, 3),
        "error": result.error or None,
    }


def csv_text(found: SweepResults) -> str:
    """CSV with a header; a cell that a spreadsheet would run as a formula is quoted against that."""
    table = rows(found)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(table[0]) if table else ["number"]
    writer.writerow(names)
    for row in table:
        writer.writerow([_cell(row[name]) for name in names])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return json.dumps(value)
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _parquet(found: SweepResults) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise BadConfig(
            f"Parquet needs {error.name}, which is missing", "pip install 'farm[parquet]', or --format csv"
        ) from error
    table = rows(found)
    columns = {name: _column([row[name] for row in table]) for name in (table[0] if table else ())}
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def _column(values: list[Any]) -> list[Any]:
    """Values of one type; a column of several is text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) <= 1 and not kinds & {list, dict}):
        return values
    return [None if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
