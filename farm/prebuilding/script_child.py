"""``python -m farm.prebuilding.script_child FILE FUNCTION FOLDER NAME``: call a user's function, keep its model.

Runs in a process of its own, on the client only (issue 8, Manifest): the script is the user's, and so trusted as their
shell is; but it may take long, print, leak or crash. The function takes nothing and returns an ``ExportedProgram``, or
the path of a ``.pt2`` or ``.onnx`` file. The last line of standard output is the file that was kept.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any


def called(file: Path, function: str) -> Any:
    """What the function returns. Its file is imported as when it is run, with its folder on the path."""
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    make = getattr(module, function, None)
    if not callable(make):
        raise SystemExit(f"{file.name} has no function {function}")
    return make()


def keep(made: Any, folder: Path, name: str) -> Path:
    """The model as a file in ``folder``."""
    if isinstance(made, (str, os.PathLike)):
        return Path(shutil.copyfile(made, folder / f"{name}{Path(made).suffix or '.pt2'}"))
    torch = sys.modules.get("torch")  # whoever made a program has imported it
    if torch is None or not isinstance(made, torch.export.ExportedProgram):
        raise SystemExit(f"the function returned {type(made).__name__}: return an ExportedProgram, or a file's path")
    path = folder / f"{name}.pt2"
    torch.export.save(made, path)
    return path


def main() -> None:
    file, function, folder, name = sys.argv[1:]
    kept = keep(called(Path(file).resolve(), function), Path(folder), name)
    print(f"\n{kept}", flush=True)


if __name__ == "__main__":
    main()
