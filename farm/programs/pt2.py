"""The ``.pt2`` front end: an archive's JSON becomes a canonical ``Graph``. Nothing in it is executed.

Names are only looked up, never kept: a value is known by the node that makes it. A name that is used before
it is made, made twice or unknown ends in ``BadProgram``, so what is digested is a well-formed program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from farm.errors import BadProgram
from farm.graph import Graph, Input, Output
from farm.graph_dims import Range
from farm.programs import schema
from farm.programs.pt2_arguments import constant
from farm.programs.pt2_nodes import NodeReader
from farm.programs.pt2_values import VALUES, bad, name_of, tagged

_UNBOUNDED = (1 << 63) - 2


class Pt2Graph:
    """Reads one ``Model``.

    ``tensors`` maps each parameter's, buffer's and constant's qualified name to the number of its tensor
    (one number for names that share one).
    """

    def __init__(self, model: schema.Model, tensors: Mapping[str, int], custom_ops: Mapping[str, str] | None) -> None:
        self.model = model
        self.tensors = tensors
        self.nodes = NodeReader(model.graph_module.graph, custom_ops)
        self.graph: Graph = self.nodes.torch.graph
        self.block = self.nodes.block
        self._user_inputs: dict[str, int] = {}
        self._lifted: dict[str, int] = {}

    def read(self) -> Graph:
        """The program as a ``Graph``."""
        module = self.model.graph_module
        self._read_inputs(module.graph.inputs, module.signature.input_specs)
        self.nodes.read()
        self._read_outputs(module.graph.outputs, module.signature.output_specs)
        self.graph.effects = self.nodes.scope.ordered
        self.graph.asserts = self.nodes.scope.asserts
        self.graph.structure = self._structure()
        self._read_ranges()
        return self.graph

    def _read_inputs(self, inputs: Sequence[schema.Argument], specs: Sequence[schema.Argument]) -> None:
        if len(inputs) != len(specs):
            raise bad("its signature and its graph do not have the same inputs")
        for argument, spec in zip(inputs, specs, strict=True):
            kind, content = tagged(spec)
            if kind in ("user_input", "constant_input"):
                self._read_user_input(argument, content)
            elif kind in ("parameter", "buffer", "tensor_constant"):
                self._read_lifted(argument, content[f"{kind}_name"])
            else:
                raise BadProgram(
                    f"the program takes a {kind.replace('_', ' ')}, which farm cannot read safely",
                    "Export a module whose state is tensors only.",
                )

    def _read_user_input(self, argument: schema.Argument, content: Any) -> None:
        tag, value = tagged(argument)
        position = len(self.graph.inputs)
        if tag not in VALUES:
            name = content.get("name") or f"arg{position}"
            self.graph.inputs.append(Input(name, None, None, constant(tag, value)))
            return
        name = name_of(tag, value)
        meta = self.nodes.metadata.of(self.block, tag, name)
        node = self.graph.leaf("input", [position], meta, name)
        self.block.define(name, node)
        self.nodes.sizes.add_input(node, meta)
        self._user_inputs[name] = node
        self.graph.inputs.append(Input(name, node, meta))

    def _read_lifted(self, argument: schema.Argument, target: str) -> None:
        tag, value = tagged(argument)
        number = self.tensors.get(target)
        if tag != "as_tensor" or number is None:
            raise bad(f"the archive holds no data for {target}")
        name = name_of(tag, value)
        node = self.graph.lifted(number, self.nodes.metadata.of(self.block, tag, name), target)
        self.block.define(name, node)
        self._lifted[target] = node

    def _read_outputs(self, outputs: Sequence[schema.Argument], specs: Sequence[schema.Argument]) -> None:
        if len(outputs) != len(specs):
            raise bad("its signature and its graph do not have the same outputs")
        for argument, spec in zip(outputs, specs, strict=True):
            kind, content = tagged(spec)
            self.graph.outputs.append(self._output(kind, self._overwritten(content), *tagged(argument)))

    def _output(self, kind: str, target: int | None, tag: str, value: Any) -> Output:
        name = name_of(tag, value) if tag in VALUES else ""
        if name:
            _, node, path = self.block.value(name)
            return Output(kind, (node, path), None, target, name, self.nodes.metadata.of(self.block, tag, name))
        if tag in VALUES:
            tag, value = tagged(value)
        return Output(kind, None, constant(tag, value), target)

    def _overwritten(self, content: Any) -> int | None:
        """The leaf that a mutation writes back to; None for an output proper."""
        for leaves, field in (
            (self._lifted, "buffer_name"),
            (self._lifted, "parameter_name"),
            (self._user_inputs, "user_input_name"),
        ):
            if field in content:
                if content[field] not in leaves:
                    raise bad(f"it writes back to {content[field]}, which is no input")
                return leaves[content[field]]
        return None

    def _structure(self) -> Any:
        for entry in self.model.graph_module.module_call_graph:
            if entry.fqn == "" and entry.signature is not None and entry.signature.out_spec:
                return tree_structure(entry.signature.out_spec)
        return None

    def _read_ranges(self) -> None:
        for name, constraint in self.model.range_constraints.items():
            found = normal_range(constraint.min_val, constraint.max_val)
            if found[0] is not None and found[1] is not None and found[0] > found[1]:
                raise bad(f"the range of {name} is empty ({found[0]} to {found[1]})")
            if name.isidentifier():
                self.graph.ranges[name] = found
            else:
                self.graph.expression_ranges.append((self.nodes.metadata.expression(name), found))


def normal_range(low: int | None, high: int | None) -> Range:
    """A range with torch's infinities as None."""
    lowest = None if low is None or low <= -_UNBOUNDED else low
    return lowest, None if high is None or high >= _UNBOUNDED else high


def tree_structure(text: str) -> Any:
    """An output tree specification as lists: type, context, children; names of inputs are not in it."""
    try:
        version, tree = msgspec.json.decode(text.encode(), type=tuple[int, dict[str, Any]])
        return [version, _tree(tree, 0)]
    except (*schema.NOT_JSON, RecursionError, KeyError, TypeError):
        raise bad("the structure of its outputs cannot be read") from None


def _tree(tree: Mapping[str, Any], depth: int) -> Any:
    if depth > 100:
        raise RecursionError
    context = tree["context"]
    children = [_tree(child, depth + 1) for child in tree["children_spec"]]
    return [tree["type"], context if isinstance(context, str) else msgspec.json.encode(context), children]
