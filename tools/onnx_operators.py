"""Write ``farm/programs/onnx_operators.json``: ONNX operators, when each last changed, and attribute defaults.

Run with the pinned onnx (``python tools/onnx_operators.py``; ``--check`` only compares). An operator of a model
is identified by the version that introduced its present meaning, so two models that import different operator
sets agree on the operators that did not change between them. Most versions of an operator only admit more types of
tensors: they mean what the one before them meant.
"""

from __future__ import annotations

import json
import re
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
    """For ``domain:Name``, ``[since_version, {attribute: [type, default]}, meaning]`` of each version, oldest first;
    ``meaning`` is the first version that meant the same."""
    found: dict[str, Any] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in DOMAINS:
            versions = found.setdefault(f"{schema.domain}:{schema.name}", {})
            versions[schema.since_version] = schema
    return {name: told([versions[since] for since in sorted(versions)]) for name, versions in sorted(found.items())}


def told(versions: list[Any]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for before, schema in zip([None, *versions], versions, strict=False):
        reread = schema.since_version == READ.get(schema.name)
        same = before is not None and (reread or but_for_types(before) == but_for_types(schema))
        rows.append([schema.since_version, defaults(schema), rows[-1][2] if same else schema.since_version])
    return rows


def but_for_types(schema: Any) -> list[Any]:
    """All that ONNX says of a version of an operator, its words included, except for which tensors it takes."""
    attributes = [
        [name, str(one.type), one.required, one.default_value.SerializeToString(), meant(schema, one)]
        for name, one in sorted(schema.attributes.items())
    ]
    values = [
        [one.name, str(one.option), one.is_homogeneous, words(one.description)]
        for one in (*schema.inputs, *schema.outputs)
    ]
    counts = [schema.min_input, schema.max_input, schema.min_output, schema.max_output, len(schema.inputs)]
    return [words(schema.doc), attributes, values, counts, schema.deprecated]


READ = {
    "ArgMax": 13,
    "ArgMin": 13,
    "Gather": 13,
    "ReduceMax": 20,
    "ReduceMin": 20,
    "ScatterElements": 18,
    "ScatterND": 18,
    "Squeeze": 23,
    "Unsqueeze": 23,
}
"""Versions that were read beside the one before: they admit more (types, a choice that an attribute did not have), and
put the rest in other words ("equal" or "equals", "1D tensor" or "list", an explanation before the same examples)."""

MORE_TYPES = re.compile(r"\(opset \d+ change\):\s*extend supported types to include[^.]*\.")
REWORDED = {"Transpose": frozenset({"perm"})}
"""Attributes whose description was put in other words once, and whose meaning was not touched."""


def meant(schema: Any, attribute: Any) -> str:
    return "" if attribute.name in REWORDED.get(schema.name, ()) else words(attribute.description)


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", MORE_TYPES.sub("", text.lower())))


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
