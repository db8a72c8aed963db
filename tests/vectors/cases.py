"""What the vectors are of, and how each is computed. ``regenerate`` writes them down; ``test_vectors`` compares."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farm import canonical, container, keys
from farm.canonical import digest, encode
from farm.compilation import CompilationSettings
from farm.identify import facts
from farm.prebuilds import lock
from farm.profiles import resolve
from farm.programs import open_program
from farm.targets import parse_target
from farm.toolchains import EXPORTER, exact_toolchain

FOLDER = Path(__file__).parent
FILE = FOLDER / "vectors.json"
CONV, GEMM, ONNX = "conv.pt2", "gemm.pt2", "gemm.onnx"
RTX = "tensorrt_rtx==1.7.1.116"

VALUES: Mapping[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "negative": -17,
    "beyond 64 bits": 2**80,
    "one as a float": 1.0,
    "signed zero": -0.0,
    "a tenth": 0.1,
    "infinity": -math.inf,
    "not a number": math.nan,
    "empty text": "",
    "text": "größe\n\u2028",
    "a lone surrogate": "\udc80",
    "bytes": b"\x00\xff",
    "empty list": [],
    "list": [1, [2.0, None], "3"],
    "tuple": (True, b""),
    "empty mapping": {},
    "mapping": {"b": 1, "a": {"": []}, "ä": False},
}

FACTS: Mapping[str, Any] = {
    "format": "pt2",
    "graph": "sha256:" + "1" * 64,
    "weights_content": "b3:" + "2" * 64,
    "weights_metadata": "sha256:" + "3" * 64,
    "constants": "sha256:" + "4" * 64,
    "operators": ["aten.linear.default", "aten.relu.default"],
    "uses_float64": False,
}
# An ONNX file says nothing of how large its dims may be.
GIVEN = {ONNX: [{"min": {"x": (1, 4)}, "opt": {"x": (2, 4)}, "max": {"x": (8, 4)}}]}
PROFILES = [{"0": {"min": [1, 4], "opt": [4, 4], "max": [8, 4]}}]
QUANTISED = {"graph": "sha256:" + "5" * 64, "operators": ["quantized_decomposed.dequantize_per_tensor.default"]}
AUTOCAST = {"enable_autocast": True, "autocast_low_precision_type": "float16"}

# name: changes of the facts, settings, toolchain, target, profiles
KEYED: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], str, str, list[Any]]] = {
    "plain": ({}, {}, RTX, "sm_89", []),
    "dynamic": ({}, {}, RTX, "sm_89", PROFILES),
    "a set of capabilities": ({}, {}, RTX, "sm_120+sm_86+sm_89", []),
    "windows": ({}, {}, RTX, "sm_89/windows", []),
    "another version and CUDA": ({}, {}, "tensorrt_rtx==1.8.0.1+cu12", "sm_89", []),
    "inert level": ({}, {"optimization_level": 5}, RTX, "sm_89", []),
    "engine settings": ({}, {"disable_tf32": True, "enable_weight_streaming": True}, RTX, "sm_89", []),
    "search settings": ({}, {"workspace_size": 2**30}, RTX, "sm_89", []),
    "refittable": ({}, {"immutable_weights": False}, RTX, "sm_89", []),
    "refittable but quantised": (QUANTISED, {"immutable_weights": False}, RTX, "sm_89", []),
    "onnx": ({"format": "onnx"}, {}, RTX, "sm_89", []),
    "doubles": ({"uses_float64": True}, {"truncate_double": True}, RTX, "sm_89", []),
    "one GPU": ({}, {"tiling_optimization_level": "full"}, "tensorrt==10.14.1", "l4", []),
    "hardware compatible": ({}, {"hardware_compatible": True}, "tensorrt==10.14.1", "sm_86", []),
    "autocast": (
        {},
        AUTOCAST | {"autocast_excluded_nodes": {"norm"}, "autocast_excluded_ops": {"aten.softmax.int"}},
        "torch_tensorrt==2.13.0",
        "rtx4090",
        [],
    ),
}

PLAN = bytes(range(256))
HEADER = container.header_for(
    PLAN,
    key="sha256:" + "a" * 64,
    recipe="sha256:" + "b" * 64,
    toolchain=RTX,
    target="sm_89",
    bindings={
        "inputs": [{"name": "größe", "dtype": "FLOAT", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "dtype": "HALF", "shape": []}],
    },
    detail={"b": [1, 1.5, None, True], "a": "\u2028"},
)
ENTRY = lock.LockEntry(
    model="größe",
    target="sm_86+sm_89",
    key="sha256:" + "a" * 64,
    recipe="sha256:" + "b" * 64,
    engine=HEADER.engine,
    size=HEADER.size,
    toolchain=RTX,
    manifest="sha256:" + "c" * 64,
    inputs={"x": "image", "a": "mask"},
    outputs={"y": "logits"},
)

REFITTED = lock.LockEntry(
    **vars(ENTRY) | {"program": "sha256:" + "d" * 64, "weights": {"first.weight": "alpha.weight", "b": "b"}}
)


def versions() -> dict[str, Any]:
    """What must rise when a vector changes. The exporter's versions are part of every recipe of a ``.pt2``."""
    return {
        "canonical": canonical.SCHEMA,
        "container": container.SCHEMA,
        "lock": lock.SCHEMA,
        "exporter": dict(EXPORTER),
    }


def computed() -> dict[str, Any]:
    """Every vector as this code computes it, as JSON gives it back."""
    found = {
        "canonical": {name: _value(value) for name, value in VALUES.items()},
        "keys": {name: _keyed(*case) for name, case in KEYED.items()},
        "programs": {name: _program(name) for name in (CONV, GEMM, ONNX)},
        "container": {"start": container.pack(HEADER, PLAN)[: -len(PLAN)].hex(), "header": _plain(vars(HEADER))},
        "lock": {
            "text": lock.format_lock([ENTRY, *_variants()]),
            "refitted": lock.format_lock([REFITTED]),
        },
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def written() -> dict[str, Any]:
    """The vectors as they were checked in."""
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return found


def _value(value: Any) -> dict[str, str]:
    return {"encoding": encode(value).hex(), "digest": digest("vector", value)}


def _keyed(
    changes: Mapping[str, Any], settings: Mapping[str, Any], toolchain: str, target: str, profiles: list[Any]
) -> dict[str, Any]:
    facts = {**FACTS, **changes}
    program = keys.ProgramFacts(
        format=facts["format"],
        graph=facts["graph"],
        weights_content=lambda: str(facts["weights_content"]),
        weights_metadata=lambda: str(facts["weights_metadata"]),
        constants=lambda: str(facts["constants"]),
        operators=frozenset(facts["operators"]),
        uses_float64=facts["uses_float64"],
        match_nodes=lambda patterns: [digest("vector node", pattern) for pattern in patterns],
    )
    found = keys.compute(
        program, profiles, CompilationSettings(**settings), exact_toolchain(toolchain), parse_target(target).target
    )
    return {"key": found.key, "recipe": found.recipe, "parts": _plain(found.parts)}


def _program(name: str) -> dict[str, Any]:
    """A real file, from its bytes to its key."""
    program = open_program(FOLDER / name)
    profiles = [profile.canonical() for profile in resolve(program.inputs, program.symbols, GIVEN.get(name, []))]
    target = parse_target("sm_89").target
    content, refittable = (
        keys.compute(facts(program), profiles, CompilationSettings(**settings), exact_toolchain(RTX), target)
        for settings in ({}, {"immutable_weights": False})
    )
    return {
        "file": program.content_digest(),
        "structure": program.structure_digest,
        "graph": program.graph_digest,
        "weights": program.weights.content_digest(),
        "weights metadata": program.weights.metadata_digest(),
        "tensors": [[one.name, one.kind, one.digest] for one in program.weights.tensors()],
        "inputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in program.inputs],
        "outputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in program.outputs],
        "symbols": {name: [one.minimum, one.maximum] for name, one in program.symbols.items()},
        "nodes": [[node.op, node.digest] for node in program.nodes()],
        "profiles": profiles,
        "key": content.key,
        "recipe": content.recipe,
        "key when refittable": refittable.key,
        "recipe when refittable": refittable.recipe,
    }


def _variants() -> list[lock.LockEntry]:
    return [lock.LockEntry(**vars(ENTRY) | {"model": "a", "inputs": {}, "variant": "fast"})]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
