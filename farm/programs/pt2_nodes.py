"""Nodes of a ``.pt2`` program: each serialised call becomes a node of the canonical graph, or drops out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from farm.canonical import as_list, encode
from farm.errors import BadProgram
from farm.graph import Meta, Node
from farm.graph_symbols import Call as SymCall
from farm.graph_symbols import Expr, Number
from farm.programs import operators as rules
from farm.programs import schema
from farm.programs.operators import Operator, operator
from farm.programs.pt2_arguments import LISTS, Arguments
from farm.programs.pt2_values import VALUES, Block, Metadata, Value, bad, name_of, tagged
from farm.programs.sizes import Sizes
from farm.programs.torch_graph import MAX_NESTING, Call, Scope, TorchGraph

_HIGHER_ORDER = "torch.ops.higher_order."
INLINE = frozenset({"wrap_with_set_grad_enabled", "wrap_with_autocast"})


class NodeReader:
    """Reads the nodes of a program's graph and of its subgraphs into ``torch.graph``."""

    def __init__(self, graph: schema.Graph, custom_ops: Mapping[str, str] | None) -> None:
        self.block = Block(graph)
        self.scope = Scope()
        self.nesting = 0
        self._captured: Sequence[Value] = ()
        self._graphs: dict[int, tuple[Any, schema.Graph, bool]] = {}
        """Subgraphs that were decoded, and whether they only compute. By ``id``, of what they were decoded from."""
        self.arguments = Arguments(self.block, self._subgraph)
        self.torch = TorchGraph(custom_ops)
        self.torch.writes_in_place = writes_in_place(graph)
        self.metadata = Metadata(self.torch.graph)
        self.sizes = Sizes(self.torch.graph)

    def _enter(self, block: Block, scope: Scope, nesting: int) -> None:
        if nesting > MAX_NESTING:
            raise bad(f"subgraphs are nested more than {MAX_NESTING} deep")
        self.block, self.scope, self.nesting = block, scope, nesting
        self.arguments.block = block

    def read(self) -> None:
        """Read every node of the current block."""
        for node in self.block.graph.nodes:
            target = node.target
            if target.startswith("torch.ops."):
                name = target[10:]
                op = operator(name)
                if op is not None:
                    self._call(node, op)
                elif name.startswith("higher_order."):
                    self._higher_order(node, name[13:])
                else:
                    self._opaque(node, name, self.torch.custom(name), custom=True)
            elif target in rules.SCALAR_OPERATORS:
                self._scalar(node)
            else:
                raise refuse_target(target)

    # Operators of the table

    def _call(self, node: schema.Node, op: Operator) -> None:
        call = Call()
        given = [(one.name, one.arg) for one in node.inputs]
        parts = self.torch.arguments(op, given, call, self.arguments.encode)
        if op.usual:
            made = self.torch.call(op, parts, call, self._metas(node), label_of(node), node)
            self._define_outputs(node, self.torch.graph.add(made))
        elif op.name in rules.ASSERTIONS:
            self._assertion(node, op, parts, call)
        elif self.torch.is_identity(op, parts) and len(node.outputs) == 1:
            self._identity(node, op)
        else:
            metas = self._metas(node)
            if op.name == "aten.sym_size.int" and self._size(node, call, metas):
                return
            if op.name in rules.NEEDS_STRIDES:
                metas += self.metadata.strides(self.block, name_of(*tagged(node.inputs[0].arg)))
            made = self.torch.call(op, parts, call, metas, label_of(node), node)
            number = self.torch.place(made, self.scope, self.torch.draws(op, parts))
            if op.name in rules.READS:
                self.sizes.add_read(number, metas)
            self._define_outputs(node, number)

    def _size(self, node: schema.Node, call: Call, metas: tuple[Meta, ...]) -> bool:
        """Take a size of an input for what it is: an expression, whichever input and dim it is read from."""
        dim = next((one.arg.get("as_int") for one in node.inputs if one.name == "dim"), None)
        known = self.sizes.of_dim(call.refs[0], dim) if call.refs else None
        number = self.sizes.place(node.target, known, call.refs, metas, label_of(node), node)
        if number is not None:
            self._define_outputs(node, number)
        return number is not None

    def _identity(self, node: schema.Node, op: Operator) -> None:
        """Its result's name becomes another name of its operand."""
        operand = next((one.arg for one in node.inputs if one.name == op.names[0]), None)
        if operand is None:
            raise bad(f"{op.name} has no operand")
        source = self.block.value(name_of(*tagged(operand)))
        self.block.define_as(name_of(*tagged(node.outputs[0])), source)
        self.torch.graph.dropped.append((label_of(node), op.name, source[1]))

    def _assertion(self, node: schema.Node, op: Operator, parts: list[bytes], call: Call) -> None:
        given = {one.name: tagged(one.arg) for one in node.inputs}
        if op.name == "aten._assert_tensor_metadata.default" and self._is_recorded(given):
            return
        made = self.torch.call(op, parts, call, self._metas(node), label_of(node), node)
        number = self.torch.place(made, self.scope, False)
        self.scope.asserts.append((number, self._condition(op, given, call)))
        self._define_outputs(node, number)

    def _is_recorded(self, given: Mapping[str, tuple[str, Any]]) -> bool:
        """Whether a metadata assertion only repeats what is recorded of its tensor (``.to()`` adds those)."""
        name = name_of(*given.get("a", ("as_tensor", {})))
        tensor = self.block.graph.tensor_values.get(name)
        expected = {name: value for name, (tag, value) in given.items() if tag != "as_none"}
        if tensor is None or set(expected) - {"a", "dtype", "layout", "device"}:
            return False
        recorded = {"dtype": tensor.dtype, "layout": tensor.layout}
        return all(expected.get(name, value) == value for name, value in recorded.items())

    def _condition(self, op: Operator, given: Mapping[str, tuple[str, Any]], call: Call) -> Expr | None:
        """What an assertion asserts, where that is certain."""
        tag, value = given.get("self", given.get("size", ("", None)))
        if op.name == "aten._assert_scalar.default" and tag == "as_bool":
            return Number("true") if value is True else None
        subject = self.sizes.certain.get(call.refs[0]) if len(call.refs) == 1 else None
        if subject is None or op.name == "aten._assert_scalar.default":
            return subject
        low, high = (given.get(name, ("", None))[1] for name in ("min", "max"))
        return within(subject, low, high) if op.name.startswith("aten.sym_constrain_range") else None

    # Python's arithmetic on symbolic numbers, custom operators, operators with subgraphs

    def _scalar(self, node: schema.Node) -> None:
        call = Call()
        parts = [self.arguments.encode(given.arg, "", call) for given in node.inputs]
        metas = self._metas(node)
        plain = [_number(*tagged(given.arg)) for given in node.inputs]
        expr = self.sizes.of_call(node.target, plain, call.refs)
        number = self.sizes.place(node.target, expr, call.refs, metas, label_of(node), node)
        if number is None:
            head = as_list(encode(node.target) + b"".join(parts))
            made = Node(node.target, head, tuple(call.refs), metas, label_of(node), node)
            number = self.torch.graph.add(made)
            self.sizes.note(number, expr, metas)
        self._define_outputs(node, number)

    def _higher_order(self, node: schema.Node, name: str) -> None:
        if name not in rules.SUBGRAPH_OPERATORS:
            raise refuse_higher_order(name)
        if name not in INLINE or not self._inline(node, name):
            self._opaque(node, name, encode(["higher_order", name]), custom=False)

    def _opaque(self, node: schema.Node, name: str, identity: bytes, custom: bool) -> None:
        """Arguments as they are given, keyword arguments by name."""
        call = Call()
        call.writes = custom
        autocast = self.scope.autocast
        self.scope.autocast = autocast or name == "wrap_with_autocast"
        captured = None if custom else self._captures(name, node.inputs)
        named = sorted(
            [one for one in node.inputs if captured is None or one is not captured], key=lambda one: one.name
        )
        parts = []
        for given in named:
            self._captured = () if captured is None else self._values_in(captured)
            parts.append(encode(given.name) + self.arguments.encode(given.arg, "", call))
        self._captured, self.scope.autocast = (), autocast
        for given in node.inputs:
            if "as_operator" in given.arg:
                parts.append(self._operator(given.arg["as_operator"]))
        head = as_list(identity + encode([_arity(output) for output in node.outputs]) + b"".join(parts))
        made = self.torch.opaque(head, name, call, self._metas(node), label_of(node), node)
        placed = self.torch.place(made, self.scope, custom or call.ordered)
        self._define_outputs(node, placed, node.is_hop_single_tensor_return is False)

    def _captures(self, name: str, inputs: Sequence[schema.NamedArgument]) -> schema.NamedArgument | None:
        """The argument that lists what the subgraphs of a call take as it is, if that is all there is to know of it.

        A subgraph that may write keeps its parameters: what it writes to is written only where it runs.
        """
        at = rules.CAPTURES.get(name)
        if at is None or at >= len(inputs) or any(one.name for one in inputs):
            return None
        named = _named(inputs[at].arg)
        inner = [self._inner(value) for tag, value in (tagged(one.arg) for one in inputs) if tag == "as_graph"]
        if named is None or not inner or not all(computes for _, computes in inner):
            return None
        last = [graph.inputs[max(0, len(graph.inputs) - len(named)) :] for graph, _ in inner]
        fits = all(len(one) == len(named) and all(tagged(taken)[0] in VALUES for taken in one) for one in last)
        return inputs[at] if fits else None

    def _inner(self, value: Any) -> tuple[schema.Graph, bool]:
        """The graph of an ``as_graph`` argument, and whether nothing in it, or within what it calls, may write."""
        known = self._graphs.get(id(value))
        if known is None:
            graph = inner_graph(value)
            known = self._graphs[id(value)] = value, graph, all(map(self._only_computes, graph.nodes))
        return known[1:]

    def _only_computes(self, node: schema.Node) -> bool:
        if not node.target.startswith(_HIGHER_ORDER):
            return not may_write(node.target)
        inner = [value for tag, value in (tagged(one.arg) for one in node.inputs) if tag == "as_graph"]
        return node.target[len(_HIGHER_ORDER) :] in rules.CAPTURES and all(self._inner(one)[1] for one in inner)

    def _values_in(self, captured: schema.NamedArgument) -> Sequence[Value]:
        return [self.block.value(name) for name in _named(captured.arg) or ()]

    def _operator(self, target: Any) -> bytes:
        """An operator as an argument: one of the table, or a custom one with its declared digest."""
        if not isinstance(target, str) or not target.startswith("torch.ops."):
            raise refuse_target(str(target))
        name = target[10:]
        return encode(name) if operator(name) is not None else self.torch.custom(name)

    def _inline(self, node: schema.Node, name: str) -> bool:
        """Read a ``no_grad`` or disabled-autocast region as part of the code around it; False if it is none.

        Gradients do not matter to inference, and switching autocast off where it is not on is nothing.
        """
        arguments = [tagged(given.arg) for given in node.inputs]
        at = next((index for index, (tag, _) in enumerate(arguments) if tag == "as_graph"), None)
        if at is None:
            return False
        if name == "wrap_with_autocast" and (self.scope.autocast or arguments[2] != ("as_bool", False)):
            return False
        outer, graph, operands = self.block, inner_graph(arguments[at][1]), arguments[at + 1 :]
        if not _is_plain(graph, operands, node.outputs):
            return False
        block = Block(graph)
        for parameter, (tag, value) in zip(graph.inputs, operands, strict=True):
            block.define_as(name_of(*tagged(parameter)), outer.value(name_of(tag, value)))
        nesting = self.nesting
        self._enter(block, self.scope, nesting + 1)
        self.read()
        self._enter(outer, self.scope, nesting)
        for output, inner in zip(node.outputs, graph.outputs, strict=True):
            outer.define_as(name_of(*tagged(output)), block.value(name_of(*tagged(inner))))
        return True

    def _subgraph(self, value: Any, call: Call) -> bytes:
        graph, _ = self._inner(value)
        outer = self.block, self.scope, self.nesting
        block, scope = Block(graph), self.torch.inner_scope(self.scope)
        captured, self._captured = self._captured, ()
        own = len(graph.inputs) - len(captured)
        self._enter(block, scope, self.nesting + 1)
        for index, parameter in enumerate(graph.inputs):
            tag, content = tagged(parameter)
            name = name_of(tag, content) if tag in VALUES else ""
            if name and index >= own:
                block.define_as(name, captured[index - own])
            elif name:
                meta = self.metadata.of(block, tag, name)
                block.define(name, self.torch.graph.leaf("subgraph input", [scope.depth, index], meta, name))
        self.read()
        inner = Call()
        outputs = [self.arguments.encode(output, "", inner) for output in graph.outputs]
        self._enter(*outer)
        return self.torch.subgraph(scope, outputs, inner.refs, own, call)

    # Results

    def _define_outputs(self, node: schema.Node, number: int, in_tuple: bool = False) -> None:
        outputs, define = node.outputs, self.block.define
        single = len(outputs) == 1 and not in_tuple
        for index, output in enumerate(outputs):
            tag, value = tagged(output)
            if tag == "as_tensors":
                for position, one in enumerate(value):
                    define(name_of("as_tensor", one), number, (position,) if single else (index, position))
            elif tag in VALUES:
                name = name_of(tag, value)
                if name:
                    define(name, number, () if single else (index,))
            elif tag != "as_none":
                raise bad(f"a node returns {tag}")

    def _metas(self, node: schema.Node) -> tuple[Meta, ...]:
        metas: list[Meta] = []
        for output in node.outputs:
            tag, value = tagged(output)
            if tag in VALUES:
                name = name_of(tag, value)
                metas += [self.metadata.of(self.block, tag, name)] if name else []
            elif tag == "as_tensors":
                metas += [self.metadata.of(self.block, "as_tensor", name_of("as_tensor", one)) for one in value]
        return tuple(metas)


def label_of(node: schema.Node) -> str:
    """The node's FX name."""
    if node.name:
        return node.name
    if len(node.outputs) == 1:
        tag, value = tagged(node.outputs[0])
        if tag in VALUES:
            return name_of(tag, value)
    return ""


def inner_graph(value: Any) -> schema.Graph:
    """The graph of an ``as_graph`` argument."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value["graph"]), type=schema.Graph)
    except (*schema.NOT_JSON, KeyError, TypeError, OverflowError) as error:
        raise bad(f"a subgraph cannot be read: {error}") from None


def _named(argument: schema.Argument) -> Sequence[str] | None:
    """The names in a list of values; None if anything else is in it."""
    tag, items = tagged(argument)
    single = LISTS.get(tag, "")
    names = [name_of(single, one) for one in items] if single in VALUES else []
    return names if names and all(names) else None


def writes_in_place(graph: schema.Graph) -> bool:
    """Whether any operator of ``graph`` may write to an operand (custom ones and subgraphs may)."""
    return any(may_write(target) for target in {node.target for node in graph.nodes})


def may_write(target: str) -> bool:
    """Whether a call of ``target`` may write to an operand."""
    op = operator(target[10:]) if target.startswith("torch.ops.") else None
    return target.startswith("torch.ops.") and (op is None or bool(op.writes) or target[10:] in rules.WRITES_WHEN_TRUE)


def refuse_target(target: str) -> BadProgram:
    """The error for a call of something that is no operator."""
    return BadProgram(
        f"the program calls {target[:120]!r}, which is not an operator",
        "Export the program again; farm takes torch operators and declared custom operators only.",
    )


def refuse_higher_order(name: str) -> BadProgram:
    """The error for a higher-order operator that may be anything."""
    return BadProgram(
        f"the program calls torch.ops.higher_order.{name}, which farm does not know to be data flow",
        "Export the module without it (no lowered, compiled or TorchBind parts).",
    )


def _number(tag: str, value: Any) -> int | None:
    """A plain number among the operands of symbolic arithmetic."""
    plain = value.get("as_int") if tag == "as_sym_int" and isinstance(value, dict) else value
    return plain if tag in ("as_int", "as_sym_int") and type(plain) is int else None


def _arity(output: schema.Argument) -> Any:
    tag, value = tagged(output)
    return [tag, len(value)] if tag == "as_tensors" else tag


def _is_plain(graph: schema.Graph, operands: Sequence[tuple[str, Any]], outputs: Sequence[Any]) -> bool:
    """Whether a region takes and returns named values only."""
    if len(graph.inputs) != len(operands) or len(graph.outputs) != len(outputs):
        return False
    tags = [tag for tag, _ in operands]
    tags += [tagged(one)[0] for one in (*graph.inputs, *graph.outputs, *outputs)]
    return all(tag in VALUES for tag in tags)


def within(subject: Expr, low: object, high: object) -> Expr:
    """``low ≤ subject ≤ high``, as far as the two are whole numbers."""
    conditions: list[Expr] = [Number("true")]
    if type(low) is int:
        conditions.append(SymCall("LessThan", (low, subject)))
    if type(high) is int:
        conditions.append(SymCall("LessThan", (subject, high)))
    return SymCall("And", tuple(conditions))
