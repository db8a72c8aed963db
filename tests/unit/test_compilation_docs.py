"""docs/settings.md is the table, written out."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.compilation import FIELDS
from farm.settings.docs import settings_page, statuses

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_in_step_with_the_table() -> None:
    assert PAGE.read_text() == settings_page(), "run: python -m farm.settings.docs > docs/settings.md"


@pytest.mark.parametrize("name", FIELDS)
def test_the_page_states_every_field_once_in_a_table_and_once_in_full(name: str) -> None:
    page = settings_page()
    assert page.count(f"\n| `{name}` |") == 1
    assert page.count(f"\n- **`{name}`** — ") == 1
    assert FIELDS[name].description in page and FIELDS[name].source in page


def test_statuses_say_for_which_versions_they_hold() -> None:
    assert statuses(FIELDS["optimization_level"]) == {
        "tensorrt": "honoured",
        "tensorrt_rtx": "inert below 2",
        "torch_tensorrt": "honoured",
    }
    assert statuses(FIELDS["enabled_precisions"])["torch_tensorrt"] == "honoured, to 2.12; then moot"
    assert statuses(FIELDS["enable_autocast"])["torch_tensorrt"] == "honoured, from 2.10"
