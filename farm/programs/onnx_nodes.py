"""Nodes of an ONNX model in canonical terms: operators by the version of their meaning, functions read in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from farm.canonical import as_list, encode
from farm.errors import BadProgram
from farm.graph import Graph, Meta, Node
from farm.graph_symbols import Expr, Sym, parse
from farm.programs import schema
from farm.programs.onnx_attributes import from_the_front, older, without_implied
from farm.programs.onnx_messages import DTYPES
from farm.programs.onnx_operators import OPTIONAL_OUTPUTS, RANDOM, WEIGHT_SLOTS, default_axis, meaning
from farm.programs.onnx_ranks import ALL_ALIKE, rank_of
from farm.programs.onnx_tensors import OnnxTensors
from farm.programs.onnx_values import OnnxValues, guessed
from farm.programs.onnx_wire import MAX_VALUES, NotAMessage
from farm.programs.torch_graph import MAX_NESTING, NONE, check_custom_ops, reference

Value = tuple[int, int]
"""A node and which of its results."""

Message = dict[str, Any]

_BYTES_OF_A_PART = 16


class Names:
    """What names mean here; what is not known here may be known outside."""

    def __init__(self, outer: Names | None = None) -> None:
        self.values: dict[str, Value] = {}
        self.outer = outer

    def find(self, name: str) -> Value:
        names: Names | None = self
        while names is not None:
            found = names.values.get(name)
            if found is not None:
                return found
            names = names.outer
        raise NotAMessage(f"{name!r} is used before it is made (nodes must be in order)")

    def define(self, name: str, value: Value) -> None:
        if name in self.values:
            raise NotAMessage(f"two values are named {name!r}")
        self.values[name] = value


class Frame:
    """Where nodes are read: names, operator set versions, a function's attributes, and what is in order."""

    def __init__(self, names: Names, opsets: Mapping[str, int], depth: int) -> None:
        self.names, self.opsets, self.depth = names, opsets, depth
        self.attributes: Mapping[str, Message] = {}
        self.ordered: list[int] = []
        self.absent: frozenset[str] = frozenset()
        """A function's parameters that its caller leaves out."""
        self.nesting = 0
        self.read: frozenset[str] = frozenset()
        """Names that something reads, in the model (or the function) at any depth."""


class OnnxNodes:
    """Reads nodes into ``graph``."""

    def __init__(
        self, tensors: OnnxTensors, functions: Sequence[Message], custom_ops: Mapping[str, str] | None
    ) -> None:
        self.graph = Graph(dialect="onnx")
        self.tensors, self.values = tensors, OnnxValues(tensors)
        self.custom_ops = check_custom_ops(custom_ops)
        self.functions = {_identity(function, "name"): function for function in functions}
        self.unrefittable: set[int] = set()
        """Tensors with a use outside ``WEIGHT_SLOTS``."""
        self.used: set[int] = set()
        self.varying: set[int] = set()
        """Nodes whose values are not known from the model alone."""
        self._reads: dict[int, frozenset[str]] = {}
        self.ranks: dict[Value, int | None] = {}
        """How many dims values have, where that is known (those of stored tensors are with them)."""
        self._fixed: set[int] = set()
        self._count = 0
        self._parts = 0

    def read(self, nodes: Sequence[Message], frame: Frame) -> None:
        """Read ``nodes`` in order."""
        for node in nodes:
            self._count += 1
            if self._count > schema.MAX_NODES:
                raise BadProgram(
                    f"the model has more than {schema.MAX_NODES:,} nodes once its functions are expanded",
                    "Split the model in two.",
                )
            self._node(node, frame)

    def _node(self, node: Message, frame: Frame) -> None:
        op, domain = node.get("op_type", ""), _domain(node.get("domain", ""))
        self._spend(len(node.get("input", ())) + len(node.get("output", ())) + len(node.get("attribute", ())))
        attributes = self._attributes(node, frame)
        inputs, outputs = _trimmed(node.get("input", []), frame.absent), _trimmed(node.get("output", []))
        if domain == "" and len(outputs) > OPTIONAL_OUTPUTS.get(op, len(outputs)):
            outputs = self._needed(outputs, OPTIONAL_OUTPUTS[op], frame)
        function = self.functions.get((domain, op, node.get("overload", "")))
        if function is not None:
            return self._call(function, inputs, outputs, attributes, frame)
        if domain == "" and op == "Identity" and len(inputs) == len(outputs) == 1:
            return self._alias(node, inputs[0], outputs[0], frame)
        if domain == "" and op == "Dropout" and len(outputs) == 1 and self._is_inference(inputs, attributes, frame):
            return self._alias(node, inputs[0], outputs[0], frame)
        if domain == "" and op == "Constant":
            label = node.get("name", "") or next(iter(outputs), "")
            number = self.values.constant(label, attributes)
            if number is not None:
                return frame.names.define(outputs[0], (self.leaf(number, label), 0))
        return self._operator(node, op, domain, attributes, inputs, outputs, frame)

    def _needed(self, outputs: list[str], least: int, frame: Frame) -> list[str]:
        """``outputs`` without those at the end that nothing reads."""
        found = list(outputs)
        while len(found) > least and found[-1] not in frame.read:
            found.pop()
        return found

    def _spend(self, parts: int) -> None:
        """Take note of what a node is made of: one in a function's body counts at each call."""
        self._parts += parts
        if self._parts > MAX_VALUES:
            raise BadProgram(
                "the model has too many parts for a program once its functions are expanded", "Split the model in two."
            )

    def _alias(self, node: Message, source: str, name: str, frame: Frame) -> None:
        value = frame.names.find(source)
        frame.names.define(name, value)
        self.graph.dropped.append((node.get("name", ""), node["op_type"], value[0]))

    def _is_inference(self, inputs: Sequence[str], attributes: Mapping[str, Message], frame: Frame) -> bool:
        """Whether a ``Dropout`` passes its operand on: from version 12 unless its training mode may be true."""
        version = frame.opsets.get("", 0)
        if version < 7:
            return bool(attributes.get("is_test", {}).get("i", 0) == 1)
        mode = self.graph.leaves.get(frame.names.find(inputs[2])[0]) if len(inputs) == 3 else None
        return len(inputs) < 3 or (mode is not None and self.tensors.is_false(mode))

    def _operator(
        self,
        node: Message,
        op: str,
        domain: str,
        attributes: Mapping[str, Message],
        inputs: Sequence[str],
        outputs: Sequence[str],
        frame: Frame,
    ) -> None:
        since, newer = older(op, attributes) if domain == "" else (None, ())
        identity, defaults = meaning(op, domain, frame.opsets, self.custom_ops, since)
        rank = None
        if domain == "":
            attributes = {name: one for name, one in attributes.items() if name not in newer} if newer else attributes
            attributes = without_implied(op, attributes, len(outputs), self._stored_shape(inputs[1:2], frame))
            ranks, stored = self._known(inputs, frame)
            default = default_axis(op, frame.opsets)
            attributes = from_the_front(op, attributes, ranks[0] if ranks else None, default)
            rank = rank_of(op, attributes, ranks, stored)
        refs: list[int] = []
        parts = [self._operand(name, position, op, refs, frame) for position, name in enumerate(inputs)]
        inner, in_order = list[int](), op in RANDOM or op == "Dropout" or identity[0] == "custom"
        encoded = []
        for name in sorted(attributes.keys() | defaults.keys()):
            given = attributes.get(name)
            if given is None:
                encoded.append(defaults[name])
                continue
            start = len(refs)
            value, ordered = self._attribute(given, refs, frame)
            inner += range(start, len(refs))
            in_order = in_order or ordered
            encoded.append(encode(name) + value)
        body = b"".join([encode([identity, len(inputs), len(outputs)]), *parts, *encoded])
        self._spend(len(body) // _BYTES_OF_A_PART)
        made = Node(op, as_list(body), tuple(refs), (), node.get("name", ""), node)
        made.inner = tuple(inner)
        number = self._place(made, frame, in_order)
        if in_order or not self.varying.isdisjoint(refs):
            self.varying.add(number)
        for index, name in enumerate(outputs):
            if name:
                frame.names.define(name, (number, index))
                self.ranks[number, index] = rank if index == 0 or op in ALL_ALIKE else None

    def _known(self, names: Sequence[str], frame: Frame) -> tuple[list[int | None], list[Sequence[int] | None]]:
        """The ranks of values, and the shapes of those that are stored."""
        found = [frame.names.find(name) if name else (-1, 0) for name in names]
        shapes = [self._shape_of(number) for number, _ in found]
        ranks = [self.ranks.get(value) if one is None else len(one) for value, one in zip(found, shapes, strict=True)]
        return ranks, shapes

    def _shape_of(self, number: int) -> Sequence[int] | None:
        """The shape of a stored tensor; None for any other value."""
        tensor = self.graph.leaves.get(number)
        return None if tensor is None else self.tensors.tensors[tensor].shape

    def _place(self, node: Node, frame: Frame, in_order: bool) -> int:
        if in_order:
            tail = encode(["effect", frame.depth, len(frame.ordered)])
            node.head = as_list(node.head + tail)
        number = self.graph.add(node)
        if in_order:
            frame.ordered.append(number)
        return number

    def _operand(self, name: str, position: int, op: str, refs: list[int], frame: Frame) -> bytes:
        if not name:
            return NONE
        number, index = frame.names.find(name)
        self._used(number, position in WEIGHT_SLOTS.get(op, ()))
        refs.append(number)
        return reference(index)

    def _stored_shape(self, names: Sequence[str], frame: Frame) -> Sequence[Any] | None:
        numbers = [self.graph.leaves.get(frame.names.find(name)[0]) for name in names if name]
        return next((self.tensors.tensors[number].shape for number in numbers if number is not None), None)

    def _used(self, number: int, replaceable: bool) -> None:
        tensor = self.graph.leaves.get(number)
        if tensor is not None:
            self.used.add(tensor)
        if not replaceable:
            self._fix(number)

    def _fix(self, number: int) -> None:
        """Let all that a value is computed from be constants, if it is computed from stored tensors alone: builders
        work it out, and may shape an engine by it."""
        pending = [number]
        while pending:
            one = pending.pop()
            if one not in self.varying and one not in self._fixed:
                self._fixed.add(one)
                pending += self.graph.nodes[one].refs
                if one in self.graph.leaves:
                    self.unrefittable.add(self.graph.leaves[one])

    # Attributes

    def _attributes(self, node: Message, frame: Frame) -> dict[str, Message]:
        """A node's attributes by name; those of a function's caller are put in where they are referred to."""
        found: dict[str, Message] = {}
        for attribute in node.get("attribute", []):
            name = attribute.get("name", "")
            if name in found:
                raise NotAMessage(f"attribute {name!r} is given twice")
            reference = attribute.get("ref_attr_name", "")
            given = frame.attributes.get(reference) if reference else attribute
            if given is not None:
                found[name] = given
        return found

    def _attribute(self, attribute: Message, refs: list[int], frame: Frame) -> tuple[bytes, bool]:
        """An attribute's type and value; True if something in it is in order."""
        kind = attribute.get("type", 0) or guessed(attribute)
        if kind == 5:
            body, ordered = self._subgraph(attribute["g"], refs, frame)
            return encode(5) + body, ordered
        if kind == 10:
            pairs = [self._subgraph(graph, refs, frame) for graph in attribute.get("graphs", [])]
            return encode(10) + b"".join(body for body, _ in pairs), any(ordered for _, ordered in pairs)
        if kind in (11, 12):
            raise BadProgram("the model has sparse tensors, which farm does not read", "Make them dense.")
        return self.values.encoded(kind, attribute), False

    def leaf(self, number: int, name: str) -> int:
        """The leaf that stands for stored tensor ``number``."""
        tensor = self.tensors.tensors[number]
        return self.graph.lifted(number, self.graph.meta(tensor.dtype, tensor.shape), name)

    # Functions and subgraphs

    def _read_in(self, function: Message) -> frozenset[str]:
        """The names that a function's body reads; worked out once for all of its calls."""
        known = self._reads.get(id(function))
        if known is None:
            known = self._reads[id(function)] = names_read(function, function.get("output", []))
        return known

    def _call(
        self,
        function: Message,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, Message],
        frame: Frame,
    ) -> None:
        """Read a function's body in place of its call."""
        names = Names()
        body = Frame(names, opsets_of(function.get("opset_import", [])), frame.depth)
        body.ordered, body.nesting = frame.ordered, _deeper(frame.nesting)
        body.read = self._read_in(function)
        defaults = {one.get("name", ""): one for one in function.get("attribute_proto", [])}
        body.attributes = {**defaults, **attributes}
        parameters = function.get("input", [])
        body.absent = frozenset(parameters[len(inputs) :]) | {
            name for name, given in zip(parameters, inputs, strict=False) if not given
        }
        for parameter, given in zip(parameters, inputs, strict=False):
            if given:
                names.define(parameter, frame.names.find(given))
        self.read(function.get("node", []), body)
        for result, name in zip(function.get("output", []), outputs, strict=False):
            if name:
                frame.names.define(name, names.find(result))

    def _subgraph(self, message: Message, refs: list[int], frame: Frame) -> tuple[bytes, bool]:
        """A body of ``If``, ``Loop`` or ``Scan``: it sees the names around it."""
        inner = Frame(Names(frame.names), frame.opsets, frame.depth + 1)
        inner.attributes, inner.nesting, inner.absent = frame.attributes, _deeper(frame.nesting), frame.absent
        inner.read = frame.read
        self.initializers(message, inner.names)
        inputs = message.get("input", [])
        for index, one in enumerate(inputs):
            if one.get("name", "") not in inner.names.values:
                # What a body says of its inputs' types only repeats what they are given.
                leaf = self.graph.leaf("subgraph input", [inner.depth, index], None, one.get("name", ""))
                self.varying.add(leaf)
                inner.names.define(one.get("name", ""), (leaf, 0))
        self.read(message.get("node", []), inner)
        parts = []
        for one in message.get("output", []):
            number, index = inner.names.find(one.get("name", ""))
            self._used(number, False)
            refs.append(number)
            parts.append(reference(index))
        refs += inner.ordered
        body = encode(["graph", inner.depth, len(inputs), len(parts), len(inner.ordered)]) + b"".join(parts)
        return body, bool(inner.ordered)

    def initializers(self, message: Message, names: Names) -> None:
        """Let a graph's initializers be leaves."""
        if message.get("sparse_initializer"):
            raise BadProgram("the model has sparse tensors, which farm does not read", "Make them dense.")
        self._spend(len(message.get("initializer", ())) + len(message.get("input", ())))
        for one in message.get("initializer", []):
            name = one.get("name", "")
            names.define(name, (self.leaf(self.tensors.add(one, name), name), 0))

    def meta(self, value: Message) -> Meta | None:
        """What a graph says of one of its inputs or outputs; None for what is no tensor."""
        tensor = value.get("type", {}).get("tensor_type")
        if tensor is None:
            return None
        dtype = DTYPES.get(tensor.get("elem_type", 0), "")
        name = value.get("name", "")
        if "shape" not in tensor:
            raise BadProgram(f"input {name!r} has no shape", "Give the model's inputs shapes (dims may be dynamic).")
        self._spend(sum(2 * len(dim.get("dim_param", "")) for dim in tensor["shape"].get("dim", [])))
        dims = [_dim(dim, f"{name} {index}") for index, dim in enumerate(tensor["shape"].get("dim", []))]
        return self.graph.meta(dtype, tuple(dims))


def names_read(body: Message, outputs: Sequence[str]) -> frozenset[str]:
    """Names that the nodes of a graph or function read, those of the graphs within it too, and its outputs."""
    found, pending = set(outputs), [body]
    while pending:
        for node in pending.pop().get("node", []):
            found.update(node.get("input", []))
            for attribute in node.get("attribute", []):
                inner = [*([attribute["g"]] if "g" in attribute else []), *attribute.get("graphs", [])]
                found.update(one.get("name", "") for graph in inner for one in graph.get("output", []))
                pending += inner
    return frozenset(found)


def _dim(dim: Message, unnamed: str) -> Expr:
    """A size, a named dim, an expression of named dims (as torch writes them), or an unnamed one."""
    name = dim.get("dim_param", "")
    if not name:
        size = dim.get("dim_value", -1)
        return size if size >= 0 else Sym(f"?{unnamed}")
    if not name.isidentifier() and any(mark in name for mark in ("+", "*", "/", "(", " - ")):
        try:
            return parse(name)
        except BadProgram:
            return Sym(name)
    return Sym(name)


def _deeper(nesting: int) -> int:
    if nesting >= MAX_NESTING:
        raise NotAMessage(f"functions or subgraphs are nested more than {MAX_NESTING} deep")
    return nesting + 1


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def opsets_of(imports: Sequence[Message]) -> dict[str, int]:
    """Operator set versions by domain."""
    return {_domain(one.get("domain", "")): one.get("version", 0) for one in imports}


def _identity(function: Message, name: str) -> tuple[str, str, str]:
    return _domain(function.get("domain", "")), function.get(name, ""), function.get("overload", "")


def _trimmed(names: Sequence[str], absent: frozenset[str] = frozenset()) -> list[str]:
    """Without optional operands or results that are left out at the end. ``absent`` are left out anywhere."""
    found = ["" if name in absent else name for name in names] if absent else list(names)
    while found and not found[-1]:
        found.pop()
    return found
