"""``python -m tests.vectors.manifest``: write ``manifest.json`` anew, once a new ``manifests.SCHEMA`` has been decided.

A real worker makes it, around a builder that builds nothing, with a key that is thrown away.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from farm.asks import Ask
from farm.config import load
from farm.dispatch import EmbeddedDispatch
from farm.manifests import SCHEMA, blob_of, body, signing_input
from farm.service import Farm
from farm.trust import make_key
from farm.wiring.backends import open_identifier, open_index, open_store
from tests.support.noop import NoopBuilder
from tests.support.noop_worker import QUEUE, open_noop_crew

FILE = Path(__file__).with_name("manifest.json")


def main() -> None:
    os.chdir(FILE.parent)
    with tempfile.TemporaryDirectory() as folder:
        key = make_key(Path(folder) / "key", "vector")
        told = {"FARM_HOME": folder, "FARM_HOST": "node-1", "FARM_SIGNING_KEY": f"{folder}/key"}
        config = load(told | {"FARM_TOOLCHAIN": "tensorrt_rtx==1.7.1.116", "FARM_TENANT": "vector"}, FILE.parent)
        index, store = open_index(config), open_store(config)
        crew = open_noop_crew(config, NoopBuilder(), 1, (QUEUE,))
        dispatch = EmbeddedDispatch(lambda: crew, lambda: None)
        with Farm(config, index, store, dispatch, open_identifier(config), lambda: ()) as farm:
            (answer,) = farm.wait(farm.submit([Ask("conv.pt2", "sm_89")]))
        row = dict(answer.manifest)
    found = {
        "schema": SCHEMA,
        "row": row,
        "blob": blob_of(row),
        "body": body(row).decode("ascii"),
        "signed": signing_input(row).decode("ascii"),
        "trusts": key.line(),
    }
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
