"""The one table of settings, in the specification's order. Pure.

Validation, keys, recipes, builders, ``farm settings`` and docs/settings.md all read ``FIELDS``. The rows are
in ``settings_rows_build`` (what reaches TensorRT) and ``settings_rows_flow`` (what surrounds it).
"""

from __future__ import annotations

from types import MappingProxyType

from farm.errors import BadSettings
from farm.settings.kinds import Value, Wrong, short
from farm.settings.model import Field, Status, Table
from farm.settings.rows_build import BUILD_ROWS
from farm.settings.rows_flow import FLOW_ROWS, NEWER_ROWS

FIELDS: Table = MappingProxyType({row.name: row for row in (*BUILD_ROWS, *FLOW_ROWS, *NEWER_ROWS)})
"""Every setting by name: the specification's order first, then the fields of newer releases."""

SEE_ALL = "'farm settings' lists every setting, its type and its default"


def find_field(name: str) -> Field:
    """The row called ``name``, in snake_case or kebab-case. ``BadSettings`` if none is."""
    field = FIELDS.get(name.strip().replace("-", "_"))
    if field is None:
        raise BadSettings(f"there is no setting '{name}'{_nearest(name)}", SEE_ALL)
    return field


def _nearest(name: str) -> str:
    import difflib  # only when somebody mistyped: it is not free to import

    close = difflib.get_close_matches(name.strip().replace("-", "_").lower(), FIELDS, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def checked(field: Field, value: object) -> Value:
    """The canonical form of ``value``. ``BadSettings`` names the field, the value and what is allowed."""
    try:
        return field.kind.check(value)
    except Wrong as wrong:
        raise not_allowed(field, value, wrong) from None


def not_allowed(field: Field, value: object, wrong: Wrong) -> BadSettings:
    """The error for a value that ``field`` does not take."""
    detail = f" ({wrong})" if str(wrong) else ""
    return BadSettings(f"{field.name} = {short(value)}: it must be {field.allowed}{detail}", SEE_ALL)


def status(field: str, flavour: str, version: str) -> Status:
    """What ``flavour`` (``tensorrt``, ``tensorrt_rtx``, ``torch_tensorrt``) does with ``field``.

    ``version`` is the toolchain's: TensorRT's for the first two, Torch-TensorRT's own for the third.
    ``BadSettings`` for an unknown field, ``BadInput`` for an unknown flavour or a version without numbers.
    """
    return find_field(field).handling(flavour, version).status
