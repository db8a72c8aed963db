"""Plain TensorRT without TensorRT: the stand-in has the names, signatures and values of the published stubs, and farm's
children are type-checked against them.

The stubs (``tensorrt-stubs``) lie in a folder of their own: among installed packages they would pass for TensorRT.
"""

from __future__ import annotations

import ast
import enum
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
STUBS = Path(sys.prefix) / "stubs"
STUB = STUBS / "tensorrt_bindings" / "tensorrt.pyi"
BUILDERS = ROOT / "farm" / "builders"
CALLED = {
    "Network": "INetworkDefinition",
    "Tensor": "ITensor",
    "Profile": "IOptimizationProfile",
    "BuilderConfig": "IBuilderConfig",
    "Memory": "IHostMemory",
    "CudaEngine": "ICudaEngine",
    "ExecutionContext": "IExecutionContext",
    "SerializationConfig": "ISerializationConfig",
}
"""The stand-in's classes that nobody names, and what TensorRT calls them."""
ITS_OWN = {("ITimingCache", "read")}
"""What the stand-in has for itself."""
LATER = {("SerializationFlag", "INCLUDE_REFIT")}
"""What TensorRT has since the release of the stubs; farm looks whether it is there (``refit_child``)."""


@pytest.fixture(scope="module", autouse=True)
def stubs() -> None:
    if not STUB.exists():
        assert not os.environ.get("CI"), f"CI must have tensorrt-stubs in {STUBS} (the Makefile puts them there)"
        pytest.skip("no tensorrt-stubs here: 'make install' fetches them")


def mended() -> str:
    """The stubs' text. Some of its signatures are no Python (a parameter without a default behind one that has one, or
    one that is called ``in``): those get a default, or another name."""
    return "\n".join(_mended(line) if line.lstrip().startswith("def ") else line for line in _text().splitlines())


def _text() -> str:
    return STUB.read_text("utf-8")


def _mended(line: str) -> str:
    try:
        ast.parse(line.strip() + " ...")
        return line
    except SyntaxError:
        head, _, rest = line.partition("(")
        inside, _, tail = rest.rpartition(")")
        given = re.split(r", (?=\w+:)", re.sub(r"\bin:", "in_:", inside))
        first = next((n for n, one in enumerate(given) if " = " in one), len(given))
        given = [one if n < first or " = " in one else f"{one} = ..." for n, one in enumerate(given)]
        return f"{head}({', '.join(given)}){tail}"


@pytest.fixture(scope="module")
def published() -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(mended()).body if isinstance(node, ast.ClassDef)}


@pytest.fixture(scope="module")
def stand_in() -> ModuleType:
    spec = importlib.util.spec_from_file_location("standin_tensorrt", HERE / "standin" / "tensorrt" / "__init__.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def classes(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield CALLED.get(name, name), value


def test_every_enum_has_the_published_members_and_values(
    stand_in: ModuleType, published: dict[str, ast.ClassDef]
) -> None:
    text = _text()
    seen, wrong = 0, []
    for name, value in classes(stand_in):
        if issubclass(value, enum.Enum):
            known = dict(re.findall(rf"'(\w+)': <{name}\.\w+: (\d+)>", text))
            wrong += [
                f"{name}.{one.name} is {known.get(one.name)}"
                for one in value
                if known.get(one.name) != str(one.value) and (name, one.name) not in LATER
            ]
            seen += len(value)
    assert not wrong and seen > 40


def test_every_method_takes_what_is_published(stand_in: ModuleType, published: dict[str, ast.ClassDef]) -> None:
    seen, wrong = 0, []
    for name, value in classes(stand_in):
        if issubclass(value, enum.Enum):
            continue
        assert name in published, f"TensorRT has no {name}"
        for method, function in vars(value).items():
            if (
                method.startswith("_")
                or (name, method) in ITS_OWN
                or not callable(function)
                or inspect.isclass(function)
            ):
                continue
            mine = list(inspect.signature(function).parameters)[1:]
            if not any(takes(one, mine) for one in definitions(published, name, method)):
                wrong.append(f"{name}.{method}({', '.join(mine)})")
            seen += 1
    assert not wrong and seen > 30


def definitions(published: dict[str, ast.ClassDef], name: str, attribute: str) -> list[ast.stmt]:
    """The stub's definitions of a class's attribute, in it or in what it derives from."""
    node = published[name]
    found = [
        one
        for one in node.body
        if (isinstance(one, ast.FunctionDef) and one.name == attribute)
        or (isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and one.target.id == attribute)
    ]
    for base in node.bases:
        if not found and isinstance(base, ast.Name) and base.id in published:
            found = definitions(published, base.id, attribute)
    return found


def takes(published: ast.stmt, mine: list[str]) -> bool:
    """Whether a call by position or by name to the stand-in's is one to the published method too."""
    if not isinstance(published, ast.FunctionDef):
        return False
    names = [one.arg for one in published.args.args if one.arg not in ("self", "this")]
    required = len(names) - len(published.args.defaults)
    return names[: len(mine)] == mine and len(mine) >= required


# -- farm's children, type-checked -----------------------------------------------------------------------------------

CHILDREN = ("trt_child.py", "timing_child.py", "subjects.py")
GIVEN = {
    "builder": "trt.Builder",
    "config": "trt.IBuilderConfig",
    "network": "trt.INetworkDefinition",
    "logger": "trt.ILogger",
    "profile": "trt.IOptimizationProfile",
    "tensor": "trt.ITensor",
    "cache": "trt.ITimingCache",
    "made": "trt.ICudaEngine",
    "context": "trt.IExecutionContext",
}
RETURNED = {
    "make_builder": "trt.Builder",
    "parse": "tuple[trt.INetworkDefinition, trt.OnnxParser]",
    "opened": "trt.ITimingCache | None",
}
RTX_ALONE = re.compile(r'"(ComputeCapability|num_compute_capabilities|[sg]et_compute_capability)"')
"""What only TensorRT-RTX has; it is asked for where a build names capabilities, which plain TensorRT's never does."""
LOOSE = re.compile(r'"Dims"|has no attribute "held"')
"""``Dims`` is a sequence, and a tuple passes for it, as TensorRT's documentation writes; the stubs do not say so.
``held`` is farm's own, on a function."""


class Typed(ast.NodeTransformer):
    """A child's module as it would be written for plain TensorRT alone: ``trt`` is the module, not a parameter, and
    what is TensorRT's has its type."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.args.args = [one for one in node.args.args if one.arg != "trt"]
        for one in node.args.args:
            if one.arg in GIVEN and isinstance(one.annotation, ast.Name) and one.annotation.id == "Any":
                one.annotation = ast.parse(GIVEN[one.arg], mode="eval").body
        if node.name in RETURNED:
            node.returns = ast.parse(RETURNED[node.name], mode="eval").body
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            return node
        node.args = [one for one in node.args if not (isinstance(one, ast.Name) and one.id == "trt")]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        names = [one.id for one in node.targets if isinstance(one, ast.Name)]
        return ast.Expr(node.value) if names == ["trt"] else node


def checked(folder: Path, sources: dict[str, str]) -> list[str]:
    """What mypy has to say against these modules, beside the stubs."""
    for name in ("tensorrt", "tensorrt_bindings"):
        (folder / name).mkdir()
        for path in (STUBS / name).glob("*.pyi"):
            text = mended() if path == STUB else path.read_text("utf-8")
            (folder / name / path.name).write_text(text, "utf-8")
    for name, text in sources.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "mypy.ini").write_text(
        "[mypy]\ncheck_untyped_defs = True\nfollow_imports = skip\nignore_missing_imports = True\n"
        "[mypy-tensorrt.*,tensorrt_bindings.*]\nfollow_imports = silent\n"
    )
    flags = ["--config-file=mypy.ini", "--no-error-summary", f"--cache-dir={folder / 'cache'}"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, *sources],
        cwd=folder,
        env={"PATH": os.defpath, "MYPYPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if ": error:" in line and line.partition(":")[0] in sources]
    return [line for line in errors if not RTX_ALONE.search(line) and not LOOSE.search(line)]


def typed(name: str) -> str:
    tree = Typed().visit(ast.parse((BUILDERS / name).read_text("utf-8")))
    return ast.unparse(ast.fix_missing_locations(tree)).replace(
        "from __future__ import annotations", "from __future__ import annotations\nimport tensorrt as trt", 1
    )


def test_what_plain_tensorrt_is_told_is_what_it_takes(tmp_path: Path) -> None:
    sources = {f"typed_{name}": typed(name) for name in CHILDREN}
    wrong = typed("trt_child.py").replace(
        "config.set_memory_pool_limit(pool, value)", "config.set_memory_pool(pool)", 1
    )
    wrong = wrong.replace("builder.build_serialized_network(network, config)", "builder.build_engine(config)", 1)
    found = checked(tmp_path, {**sources, "wrong.py": wrong})
    assert [line for line in found if not line.startswith("wrong.py")] == []
    assert len(found) == 2, "the check sees what TensorRT has not"
