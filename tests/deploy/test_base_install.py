"""``pip install farm`` without extras: small, without torch, and enough for ``prebuild --check`` and ``pull``."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from deployment import ROOT

from farm.blobs.folder import FolderStore
from farm.prebuilds.lock import LockEntry, format_lock
from tests.conftest import clean_environment

MOST_MB = 100
INSTALLERS = ("pip", "setuptools", "_distutils", "pkg_resources", "distutils")


def packages(site: Path) -> int:
    """Bytes of all that was installed, compiled files too; less what makes a venv install anything."""
    files = (path for path in site.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files if not path.relative_to(site).parts[0].startswith(INSTALLERS))


@pytest.mark.slow
def test_it_is_small_and_enough(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(ROOT)]
    if subprocess.run(pip, timeout=280, cwd=tmp_path).returncode:
        pytest.skip("no packages can be had here")
    (site,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    assert packages(site) < MOST_MB * 10**6
    names = {path.name for path in site.iterdir()}
    assert not names & {"torch", "tensorrt", "tensorrt_rtx", "numpy", "boto3", "psycopg"}

    home, plan = tmp_path / "home", b"an engine"
    digest, key = ("sha256:" + hashlib.sha256(data).hexdigest() for data in (plan, b"key"))
    store = FolderStore(home / "store")
    store.put(io.BytesIO(plan))
    manifest = {"key": key, "engine": {"digest": digest, "size": len(plan)}}
    blob = store.put(io.BytesIO(json.dumps(manifest).encode())).digest
    line = LockEntry("m", "sm_89", key, key, digest, len(plan), "tensorrt_rtx==1.7.1.116", blob)
    (tmp_path / "farm.lock").write_text(format_lock([line]))
    (tmp_path / "farm.yaml").write_text(f"models: {{m: {ROOT}/tests/vectors/gemm.pt2}}\ntargets: [sm_89]\n")

    def farm(*words: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in clean_environment(home).items() if name != "PYTHONPATH"}
        command = [python.with_name("farm"), *words]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    pulled = farm("pull", "-t", "rtx4090", "-o", "out")
    assert pulled.returncode == 0, pulled.stderr
    assert (tmp_path / "out" / "m.sm_89.plan").read_bytes() == plan
    checked = farm("prebuild", "--check")
    assert checked.returncode == 3 and "m for sm_89: missing" in checked.stderr
