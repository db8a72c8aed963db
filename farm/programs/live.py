"""Live programs: an ``ExportedProgram`` in memory, or a subgraph that Torch-TensorRT hands to an engine cache.

The same canonical nodes as from a saved file, so the same digests, without saving it. This is the one module of
``farm.programs`` that imports torch.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.fx import GraphModule
from torch.utils._pytree import treespec_dumps

from farm.canonical import as_list, digest, digest_encoded, encode
from farm.errors import BadProgram
from farm.graph import Canonical, Graph, Input, Node, Output, canonicalise
from farm.graph_symbols import parse
from farm.programs.live_nodes import LiveNodes
from farm.programs.live_tensors import LiveTensors
from farm.programs.live_values import bound, plain_constant
from farm.programs.pause import collection_paused
from farm.programs.program import LEAVES, Loaded, Program, build_program
from farm.programs.pt2 import normal_range, tree_structure
from farm.programs.torch_graph import check_custom_ops
from farm.programs.values_read import weights_of
from farm.programs.weights import Weights


def program_of(program: ExportedProgram, *, custom_ops: Mapping[str, str] | None = None) -> Program:
    """``program`` as ``open_program`` would describe it once saved; ``path`` is empty."""
    reader = _ExportedReader(program, custom_ops)
    graph = reader.read()
    loaded = Loaded(graph, canonicalise(graph), _describe)
    return build_program(Path(), "pt2", loaded, weights_of(reader.tensors.tensors, graph, loaded.canonical))


@dataclass(frozen=True)
class Subgraph:
    """A subgraph's digests, as ``Program`` has them.

    ``operators`` are those that its live nodes call. ``naming`` digests what those nodes are called, each with what it
    computes: an engine's weights are named after them, and are found by these names when it is refitted.
    """

    structure_digest: str
    weights: Weights
    canonical: Canonical
    operators: frozenset[str]
    naming: str

    @property
    def graph_digest(self) -> str:
        """``sha256:`` digest of the graph with the values of its constants."""
        return digest("graph", [self.structure_digest, [list(one) for one in self.weights.constants()]])


def subgraph_digest(
    module: GraphModule,
    input_specs: Sequence[Any],
    *,
    custom_ops: Mapping[str, str] | None = None,
    known_namespaces: Sequence[str] = ("tensorrt",),
    named: bool = True,
) -> Subgraph:
    """Digests of a subgraph with its input specs (``torch_tensorrt.Input``, or anything with its fields).

    ``naming`` is for recipes: who wants only a key leaves it out (``named=False``).

    Operators of ``known_namespaces`` need no declared digest: they come with the toolchain that the key names.
    ``BadProgram`` for a graph that calls modules or methods, whose meaning is not in the graph.
    """
    with collection_paused():
        return _subgraph(_SubgraphReader(module, input_specs, custom_ops, known_namespaces), named)


def _subgraph(reader: _SubgraphReader, named: bool) -> Subgraph:
    """In a function of its own, so that the graph is gone before collection goes on and would look through it."""
    graph = reader.read()
    canonical = canonicalise(graph)
    live = [graph.nodes[number] for number in canonical.order]
    return Subgraph(
        structure_digest=canonical.structure_digest,
        weights=weights_of(reader.tensors.tensors, graph, canonical),
        canonical=canonical,
        operators=frozenset(node.op for node in live if node.op not in LEAVES),
        naming=_naming(graph, canonical) if named else "",
    )


def _naming(graph: Graph, canonical: Canonical) -> str:
    """``sha256:`` digest of the live nodes' names, as Torch-TensorRT makes them: after the node, and the modules that
    it came from (of which it takes one off a stack each time it asks; nodes may have one stack between them)."""
    nodes, digest_of = graph.nodes, canonical.digest_of
    told, stacks, paths = list[bytes](), dict[int, int](), dict[tuple[str, ...], bytes]()
    for number in canonical.order:
        source = nodes[number].source
        if isinstance(source, torch.fx.Node):
            stack = source.meta.get("nn_module_stack") or {}
            modules = tuple([str(entry[0]) if isinstance(entry, tuple) else str(entry) for entry in stack.values()])
            shared = stacks.setdefault(id(stack), len(stacks)) if modules else -1
            path = paths.get(modules) or paths.setdefault(modules, encode(modules))
            # The bytes of encode([canonical.node_digest(number), source.name, modules, shared]).
            own = b"s71:sha256:" + hexlify(digest_of[number][4:])
            told.append(as_list(own + encode(source.name) + path + encode(shared)))
    return digest_encoded("naming", as_list(b"".join(told)))


class _ExportedReader:
    def __init__(self, program: ExportedProgram, custom_ops: Mapping[str, str] | None) -> None:
        self.program = program
        self.nodes = LiveNodes(program.graph_module, check_custom_ops(custom_ops))
        self.tensors = LiveTensors()
        self.graph: Graph = self.nodes.torch.graph
        self._user_inputs: dict[str, int] = {}
        self._lifted: dict[str, int] = {}

    def read(self) -> Graph:
        """The program as a ``Graph``."""
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, self.program.graph_signature.input_specs, strict=True):
            self._read_input(node, spec)
        self.nodes.read(self.program.graph)
        self._read_outputs()
        self.graph.effects = self.nodes.scope.ordered
        self.graph.asserts = self.nodes.scope.asserts
        self.graph.structure = self._structure()
        self.graph.storages = self.tensors.storages()
        self._read_ranges()
        return self.graph

    def _read_input(self, node: torch.fx.Node, spec: Any) -> None:
        if spec.kind == InputKind.USER_INPUT:
            self._read_user_input(node, spec.arg)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            if not isinstance(spec.arg, TensorArgument):
                raise BadProgram(f"{spec.target} is lifted but no tensor", "Export the program again.")
            store = self.program.state_dict if spec.target in self.program.state_dict else self.program.constants
            lasting = spec.kind == InputKind.PARAMETER or spec.persistent is True
            number = self.tensors.add(spec.target, store[spec.target], lasting)
            leaf = self.graph.lifted(number, self.nodes.metadata.of(node.meta["val"]), spec.target)
            self.nodes.define(node, leaf)
            self._lifted[spec.target] = leaf
        else:
            raise BadProgram(
                f"the program takes a {spec.kind.name.lower().replace('_', ' ')}, which farm cannot read safely",
                "Export a module whose state is tensors only.",
            )

    def _read_user_input(self, node: torch.fx.Node, argument: Any) -> None:
        position = len(self.graph.inputs)
        if isinstance(argument, ConstantArgument):
            constant = plain_constant(argument.value)
            self.graph.inputs.append(Input(argument.name or f"arg{position}", None, None, constant))
            return
        meta = self.nodes.metadata.of(node.meta["val"])
        leaf = self.graph.leaf("input", [position], meta, node.name)
        self.nodes.define(node, leaf)
        self.nodes.sizes.add_input(leaf, meta)
        self._user_inputs[node.name] = leaf
        self.graph.inputs.append(Input(node.name, leaf, meta))

    def _read_outputs(self) -> None:
        (returned,) = [node.args[0] for node in self.program.graph.nodes if node.op == "output"]
        for value, spec in zip(returned, self.program.graph_signature.output_specs, strict=True):
            kind = spec.kind.name.lower()
            target = self._overwritten(spec)
            if isinstance(value, torch.fx.Node):
                _, node, path = self.nodes.value(value)
                meta = self.nodes.metadata.of(value.meta["val"])
                self.graph.outputs.append(Output(kind, (node, path), None, target, value.name, meta))
            else:
                self.graph.outputs.append(Output(kind, None, plain_constant(value), target))

    def _overwritten(self, spec: Any) -> int | None:
        if spec.kind in (OutputKind.USER_OUTPUT, OutputKind.LOSS_OUTPUT, OutputKind.TOKEN):
            return None
        if spec.kind in (OutputKind.USER_INPUT_MUTATION, OutputKind.GRADIENT_TO_USER_INPUT):
            return self._user_inputs[spec.target]
        return self._lifted[spec.target]

    def _structure(self) -> Any:
        for entry in self.program.module_call_graph:
            if entry.fqn == "" and entry.signature is not None:
                return tree_structure(treespec_dumps(entry.signature.out_spec, 1))
        return None

    def _read_ranges(self) -> None:
        for symbol, limits in self.program.range_constraints.items():
            found = normal_range(bound(limits.lower), bound(limits.upper))
            name = str(symbol)
            if name.isidentifier():
                self.graph.ranges[name] = found
            else:
                self.graph.expression_ranges.append((parse(name), found))


class _SubgraphReader:
    def __init__(
        self,
        module: GraphModule,
        input_specs: Sequence[Any],
        custom_ops: Mapping[str, str] | None,
        known_namespaces: Sequence[str],
    ) -> None:
        self.module = module
        self.specs = list(input_specs)
        self.tensors = LiveTensors()
        self.nodes = LiveNodes(module, check_custom_ops(custom_ops), frozenset(known_namespaces), self.tensors)
        self.graph: Graph = self.nodes.torch.graph

    def read(self) -> Graph:
        """The subgraph as a ``Graph``; what is said of its inputs is its structure."""
        self.graph.dialect = "subgraph"
        ends = [node for node in self.module.graph.nodes if node.op in ("placeholder", "output")]
        for node in ends:
            if node.op == "placeholder":
                self._read_input(node)
        self.nodes.read(self.module.graph)
        self.graph.structure = [_input_spec(spec) for spec in self.specs]
        for node in ends:
            if node.op == "output":
                self._read_output(node.args[0])
        self.graph.effects = self.nodes.scope.ordered
        self.graph.asserts = self.nodes.scope.asserts
        if self.nodes.torch.writes_in_place:
            self.graph.storages = self.tensors.storages()
        return self.graph

    def _read_input(self, node: torch.fx.Node) -> None:
        position = len(self.graph.inputs)
        meta = self.nodes.metadata.maybe(node)
        leaf = self.graph.leaf("input", [position], meta, node.name)
        self.nodes.define(node, leaf)
        if meta is not None:
            self.nodes.sizes.add_input(leaf, meta)
        self.graph.inputs.append(Input(node.name, leaf, meta))

    def _read_output(self, returned: Any) -> None:
        many = isinstance(returned, list | tuple)
        self.graph.structure.append(["returns", type(returned).__name__ if many else ""])
        for value in returned if many else [returned]:
            if isinstance(value, torch.fx.Node):
                _, number, path = self.nodes.value(value)
                self.graph.outputs.append(Output("user_output", (number, path)))
            else:
                self.graph.outputs.append(Output("user_output", None, plain_constant(value)))


_SPEC_FIELDS = ("dtype", "format", "shape_mode", "is_shape_tensor", "tensor_domain", "low_tensor_domain_incl")


def _input_spec(spec: Any) -> Any:
    """Everything of an input spec that an engine is built from; names stay out."""
    shape = spec.shape
    shapes = dict(shape) if isinstance(shape, Mapping) else {"static": shape}
    sizes = [[str(name), [int(size) for size in shapes[name]]] for name in sorted(shapes, key=str)]
    return [sizes, *[[name, str(getattr(spec, name, None))] for name in _SPEC_FIELDS]]


def _describe(node: Node) -> tuple[str, str]:
    from farm.programs.describe import shorten, source_line

    source = node.source
    if not isinstance(source, torch.fx.Node):
        return "", ""
    shown = ", ".join([*map(str, source.args), *(f"{name}={value}" for name, value in source.kwargs.items())])
    return shorten(shown), source_line(str(source.meta.get("stack_trace") or ""))
