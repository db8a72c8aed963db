"""Write ``farm/programs/onnx_operators.json``: ONNX operators, when each last changed, and attribute defaults.

Run with the pinned onnx (``python tools/onnx_operators.py``; ``--check`` only compares). An operator of a model
is identified by the version that introduced its present meaning, so two models that import different operator
sets agree on the operators that did not change between them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx

TABLE = Path(__file__).parent.parent / "farm" / "programs" / "onnx_operators.json"
DOMAINS = ("", "ai.onnx.ml")


def main() -> int:
    text = json.dumps({"onnx": onnx.__version__, "operators": rows()}, separators=(",", ":"))
    text = text.replace(']],"', ']],\n"') + "\n"
    if "--check" in sys.argv:
        return 0 if TABLE.read_text() == text else 1
    TABLE.write_text(text)
    return 0


def rows() -> dict[str, Any]:
    """For ``domain:Name``, ``[since_version, {attribute: [type, default]}]`` of each version, oldest first."""
    found: dict[str, Any] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in DOMAINS:
            versions = found.setdefault(f"{schema.domain}:{schema.name}", {})
            versions[schema.since_version] = defaults(schema)
    return {name: [[since, versions[since]] for since in sorted(versions)] for name, versions in sorted(found.items())}


def defaults(schema: Any) -> dict[str, Any]:
    found = {}
    for name, attribute in sorted(schema.attributes.items()):
        value = attribute.default_value
        if value.name and value.type:
            given = onnx.helper.get_attribute_value(value)
            found[name] = [value.type, given.decode() if isinstance(given, bytes) else plain(given)]
    return found


def plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [item.decode() if isinstance(item, bytes) else item for item in value]
    if not isinstance(value, int | float | str):
        raise TypeError(f"a default of type {type(value).__name__}")
    return value


if __name__ == "__main__":
    sys.exit(main())
