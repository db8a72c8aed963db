"""The deployment files as data, and as they stand in a clean checkout."""

from __future__ import annotations

import subprocess
import sys

import pytest
from deployment import DEPLOY, ROOT

# What lies there are scripts, which find each other by the folder that they were started from.
sys.path.insert(0, str(DEPLOY))


@pytest.fixture(scope="session")
def tracked() -> set[str]:
    """What a clean checkout holds, by path from its root. Files that are about to be committed count."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return set(listed.stdout.splitlines())
