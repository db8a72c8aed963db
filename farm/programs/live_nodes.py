"""Nodes of a live FX graph, in the same canonical terms as ``pt2_nodes`` gives those of a saved one."""

from __future__ import annotations

import math
import operator as python_operator
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.fx import Graph as FxGraph
from torch.fx import GraphModule
from torch.fx import Node as FxNode

from farm.canonical import NUMBERS, as_list, encode
from farm.errors import BadProgram
from farm.graph import Meta, Node
from farm.graph_symbols import Expr, Number
from farm.programs import operators as rules
from farm.programs.live_tensors import LiveTensors
from farm.programs.live_values import LiveMetadata, dtype_name, layout_name
from farm.programs.operators import Operator, operator
from farm.programs.pt2_arguments import sequence
from farm.programs.pt2_nodes import INLINE, refuse_higher_order, refuse_target, within
from farm.programs.pt2_values import Value, bad
from farm.programs.sizes import Sizes
from farm.programs.torch_graph import MAX_NESTING, Call, Scope, TorchGraph, reference, usual_node

_WHOLE = reference()
_KEPT = ("_parameters", "_buffers", "_modules")
_GUARDS = "GuardsFn"
_SYMBOLIC = (torch.SymInt, torch.SymBool, torch.SymFloat)
_TAGS = ((torch.Tensor, "as_tensor"), ((bool, torch.SymBool), "as_sym_bool"), ((int, torch.SymInt), "as_sym_int"))


class LiveNodes:
    """Reads FX graphs into ``torch.graph``. ``tensors`` takes tensors that nodes fetch from the module."""

    def __init__(
        self,
        module: GraphModule,
        custom_ops: Mapping[str, str],
        known_namespaces: frozenset[str] = frozenset(),
        tensors: LiveTensors | None = None,
    ) -> None:
        self.module = module
        self.scope = Scope()
        self.nesting = 0
        self.torch = TorchGraph(custom_ops)
        self.torch.writes_in_place = _writes_in_place(module.graph)
        self.metadata = LiveMetadata(self.torch.graph)
        self.sizes = Sizes(self.torch.graph)
        self._known_namespaces = known_namespaces
        self._tensors = tensors
        self._values: dict[FxNode, Value | list[Value]] = {}
        self._holders: dict[tuple[GraphModule, str], Any] = {}
        self._recorded: dict[FxNode, tuple[Meta, ...]] = {}
        self._captured: Sequence[Value] = ()

    def define(self, node: FxNode, number: int, path: tuple[int, ...] = ()) -> None:
        """Let ``node`` be result ``path`` of canonical node ``number``."""
        self._values[node] = (reference(*path) if path else _WHOLE, number, path)

    def value(self, node: FxNode) -> Value:
        """What ``node`` is."""
        found = self._values.get(node)
        if not isinstance(found, tuple):
            raise bad(f"{node.name} is used before it is made")
        return found

    def read(self, graph: FxGraph) -> None:
        """Read every node of ``graph`` but its inputs and outputs."""
        nodes = list(graph.nodes)
        self._recorded.update(self.metadata.of_fakes(nodes))
        for node in nodes:
            # Only calls have operators for targets; most nodes are calls of known ones.
            known = _OPERATORS.get(id(node.target))
            if known is not None and known[1] is not None:
                self._call(node, known[1])
            elif node.op == "call_function":
                self._function(node)
            elif node.op == "get_attr":
                self._attribute(node)
            elif node.op not in ("placeholder", "output") and not self._only_guards(node):
                raise BadProgram(
                    f"the graph has a {node.op} of {node.target}, whose meaning is not in the graph",
                    "Trace the module with torch.export.",
                )

    def _only_guards(self, node: FxNode) -> bool:
        """The call that ``ExportedProgram.module()`` puts first, which looks at its inputs' sizes and gives nothing."""
        return node.op == "call_module" and not node.users and type(self._held(str(node.target))).__name__ == _GUARDS

    def _function(self, node: FxNode) -> None:
        target = node.target
        if target is python_operator.getitem and not isinstance(node.args[0], list | tuple):
            return self._getitem(node)
        if isinstance(target, torch._ops.OpOverload):
            op = known_operator(target)
            return self._call(node, op) if op is not None else self._custom(node, str(target), target)
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._higher_order(node, target.name())
        name = f"{target.__module__}.{target.__name__}" if callable(target) else str(target)
        if name not in rules.SCALAR_OPERATORS:
            raise refuse_target(name)
        return self._scalar(node, name)

    def _getitem(self, node: FxNode) -> None:
        source, index = node.args
        found = self._values.get(source) if isinstance(source, FxNode) else None
        if isinstance(found, list):
            self._values[node] = found[int(index)]
        elif found is not None:
            _, number, path = found
            self.define(node, number, (*path, int(index)))
        else:
            raise bad(f"{node.name} is used before it is made")

    def _attribute(self, node: FxNode) -> None:
        """A tensor that the module holds; graphs are read where they are called."""
        target = str(node.target)
        held = self._held(target)
        if isinstance(held, torch.Tensor):
            if self._tensors is None:
                raise bad(f"{target} is not lifted")
            number = self._tensors.add(target, held, True)
            self.define(node, self.torch.graph.lifted(number, self.metadata.of(held), target))

    def _held(self, target: str) -> Any:
        """What the module holds as ``target``. Parameters are looked up where ``nn.Module`` keeps them."""
        place, _, name = target.rpartition(".")
        key = (self.module, place)
        holder = self._holders.get(key)
        if holder is None:
            holder = self._holders[key] = _attribute(self.module, place) if place else self.module
        return _child(holder, name)

    # Operators

    def _call(self, node: FxNode, op: Operator) -> None:
        """One call of a known operator. The most frequent thing there is, so what is plain is done right here."""
        args, kinds, call = node.args, op.kinds, Call()
        if not op.plain or node.kwargs or len(args) > len(kinds):
            given = [*zip(op.names, args, strict=False), *node.kwargs.items()]
            parts = self.torch.arguments(op, given, call, self.encode)
        else:
            parts, refs, values, index = op.defaults.copy(), call.refs, self._values, -1
            for argument in args:
                index += 1
                kind_of = type(argument)
                if kind_of is FxNode:
                    found = values.get(argument)
                    if type(found) is tuple:
                        refs.append(found[1])
                        parts[index] = found[0]
                        continue
                elif kind_of is int and kinds[index] != "f":
                    parts[index] = NUMBERS.get(argument) or encode(argument)
                    continue
                parts[index] = self.encode(argument, kinds[index], call)
        if op.usual:
            nodes, metas = self.torch.graph.nodes, self._recorded.get(node) or self._metas(node)
            self._values[node] = (_WHOLE, len(nodes), ())
            nodes.append(usual_node(op, self.torch.head(op, parts, call, metas), call, metas, node.name, node))
        else:
            self._unusual_call(node, op, parts, call)

    def _unusual_call(self, node: FxNode, op: Operator, parts: list[bytes], call: Call) -> None:
        """Assertions, identities, sizes, writes and draws."""
        given = {**dict(zip(op.names, node.args, strict=False)), **node.kwargs}
        if op.name in rules.ASSERTIONS:
            self._assertion(node, op, given, parts, call)
        elif self.torch.is_identity(op, parts):
            source = self.value(given[op.names[0]])
            self._values[node] = source
            self.torch.graph.dropped.append((node.name, op.name, source[1]))
        else:
            metas = self._metas(node)
            if op.name == "aten.sym_size.int" and self._size(node, op.name, call, metas):
                return
            if op.name in rules.NEEDS_STRIDES:
                metas += self.metadata.strides(given[op.names[0]].meta["val"])
            made = self.torch.call(op, parts, call, metas, node.name, node)
            number = self.torch.place(made, self.scope, self.torch.draws(op, parts))
            if op.name in rules.READS:
                self.sizes.add_read(number, metas)
            self.define(node, number)

    def _size(self, node: FxNode, name: str, call: Call, metas: tuple[Meta, ...]) -> bool:
        known = self.sizes.of_dim(call.refs[0], node.args[1]) if call.refs else None
        number = self.sizes.place(f"torch.ops.{name}", known, call.refs, metas, node.name, node)
        if number is not None:
            self.define(node, number)
        return number is not None

    def _assertion(self, node: FxNode, op: Operator, given: dict[str, Any], parts: list[bytes], call: Call) -> None:
        if op.name == "aten._assert_tensor_metadata.default" and _is_recorded(given):
            return
        made = self.torch.call(op, parts, call, self._metas(node), node.name, node)
        number = self.torch.place(made, self.scope, False)
        self.scope.asserts.append((number, self._condition(op, given, call)))
        self.define(node, number)

    def _condition(self, op: Operator, given: Mapping[str, Any], call: Call) -> Expr | None:
        """As in ``pt2_nodes``: what an assertion asserts, where that is certain."""
        if op.name == "aten._assert_scalar.default" and isinstance(given.get("self"), bool):
            return Number("true") if given["self"] else None
        subject = self.sizes.certain.get(call.refs[0]) if len(call.refs) == 1 else None
        if subject is None or op.name == "aten._assert_scalar.default":
            return subject
        constrains = op.name.startswith("aten.sym_constrain_range")
        return within(subject, given.get("min"), given.get("max")) if constrains else None

    def _scalar(self, node: FxNode, name: str) -> None:
        call = Call()
        parts = [self.encode(argument, "", call) for argument in node.args]
        metas = self._metas(node)
        plain = [one if type(one) is int else None for one in node.args]
        expr = self.sizes.of_call(name, plain, call.refs)
        number = self.sizes.place(name, expr, call.refs, metas, node.name, node)
        if number is None:
            head = as_list(encode(name) + b"".join(parts))
            number = self.torch.graph.add(Node(name, head, tuple(call.refs), metas, node.name, node))
            self.sizes.note(number, expr, metas)
        self.define(node, number)

    def _custom(self, node: FxNode, name: str, target: Any) -> None:
        namespace = name.partition(".")[0]
        identity = encode(["known", name]) if namespace in self._known_namespaces else self.torch.custom(name)
        names = [argument.name for argument in target._schema.arguments]
        given = [*zip(names, node.args, strict=False), *node.kwargs.items()]
        self._opaque(node, name, identity, given, _returns(target, node), custom=True)

    def _higher_order(self, node: FxNode, name: str) -> None:
        if name not in rules.SUBGRAPH_OPERATORS:
            raise refuse_higher_order(name)
        if name not in INLINE or not self._inline(node, name):
            value = node.meta.get("val")
            outputs = list(value) if isinstance(value, tuple) else [value]
            given = [*[("", argument) for argument in node.args], *node.kwargs.items()]
            at = self._captures(name, node)
            captured = [] if at is None else [self.value(one) for one in given.pop(at)[1]]
            self._opaque(node, name, encode(["higher_order", name]), given, outputs, custom=False, captured=captured)

    def _captures(self, name: str, node: FxNode) -> int | None:
        """As in ``pt2_nodes``: which argument lists what the subgraphs of a call take as it is."""
        at = rules.CAPTURES.get(name)
        if at is None or at >= len(node.args) or node.kwargs:
            return None
        listed, inner = node.args[at], self._graphs_of(self.module, node)
        named = isinstance(listed, list | tuple) and listed and all(_is_value(one) for one in listed)
        if not named or not inner or not all(self._only_computes(graph) for graph in inner):
            return None
        taken = [[one for one in graph.graph.nodes if one.op == "placeholder"] for graph in inner]
        return at if all(len(one) >= len(listed) for one in taken) else None

    def _graphs_of(self, holder: GraphModule, node: FxNode) -> list[GraphModule]:
        held = [
            _attribute(holder, str(one.target)) for one in node.args if isinstance(one, FxNode) and one.op == "get_attr"
        ]
        return [one for one in held if isinstance(one, GraphModule)]

    def _only_computes(self, module: GraphModule) -> bool:
        """Whether nothing in a subgraph, or within what it calls, may write."""
        for node in module.graph.nodes:
            target = node.target
            if isinstance(target, torch._ops.HigherOrderOperator):
                inner = self._graphs_of(module, node)
                if target.name() not in rules.CAPTURES or not all(self._only_computes(one) for one in inner):
                    return False
            elif node.op == "call_function" and _may_write(target):
                return False
        return True

    def _opaque(
        self,
        node: FxNode,
        name: str,
        identity: bytes,
        given: Sequence[tuple[str, Any]],
        outputs: Sequence[Any],
        custom: bool,
        captured: Sequence[Value] = (),
    ) -> None:
        call = Call()
        call.writes = custom
        autocast = self.scope.autocast
        self.scope.autocast = autocast or name == "wrap_with_autocast"
        named = sorted(given, key=lambda pair: pair[0])
        parts = []
        for label, argument in named:
            self._captured = captured
            parts.append(encode(label) + self.encode(argument, "", call))
        self._captured, self.scope.autocast = (), autocast
        for _, argument in given:
            if isinstance(argument, torch._ops.OpOverload):
                known = operator(str(argument)) is not None
                parts.append(encode(str(argument)) if known else self.torch.custom(str(argument)))
        head = as_list(identity + encode([_arity(output) for output in outputs]) + b"".join(parts))
        made = self.torch.opaque(head, name, call, self._metas(node), node.name, node)
        self.define(node, self.torch.place(made, self.scope, custom or call.ordered))

    def _inline(self, node: FxNode, name: str) -> bool:
        """As ``pt2_nodes`` does: a ``no_grad`` or disabled-autocast region is part of the code around it."""
        at = next((index for index, one in enumerate(node.args) if self._graph_of(one) is not None), None)
        inner = None if at is None else self._graph_of(node.args[at])
        if at is None or inner is None:
            return False
        if name == "wrap_with_autocast" and (self.scope.autocast or node.args[2] is not False):
            return False
        operands, returned = node.args[at + 1 :], _returned(inner.graph)
        parameters = [one for one in inner.graph.nodes if one.op == "placeholder"]
        plain = all(isinstance(one, FxNode) for one in (*operands, *(returned if returned is not None else [])))
        if not plain or len(operands) != len(parameters):
            return False
        for parameter, operand in zip(parameters, operands, strict=True):
            self._values[parameter] = self.value(operand)
        self._read_inner(inner, self.scope)
        output = inner.graph.output_node().args[0]
        many = isinstance(output, list | tuple)
        self._values[node] = [self.value(one) for one in output] if many else self.value(output)
        return True

    def _read_inner(self, module: GraphModule, scope: Scope) -> None:
        if self.nesting >= MAX_NESTING:
            raise bad(f"subgraphs are nested more than {MAX_NESTING} deep")
        outer = self.module, self.scope
        self.module, self.scope, self.nesting = module, scope, self.nesting + 1
        self.read(module.graph)
        (self.module, self.scope), self.nesting = outer, self.nesting - 1

    def _graph_of(self, argument: Any) -> GraphModule | None:
        if isinstance(argument, FxNode) and argument.op == "get_attr":
            held = _attribute(self.module, str(argument.target))
            return held if isinstance(held, GraphModule) else None
        return None

    def _subgraph(self, inner: GraphModule, call: Call) -> bytes:
        scope = self.torch.inner_scope(self.scope)
        captured, self._captured = self._captured, ()
        parameters = [one for one in inner.graph.nodes if one.op == "placeholder"]
        own = len(parameters) - len(captured)
        for parameter, value in zip(parameters[own:], captured, strict=True):
            self._values[parameter] = value
        for index, parameter in enumerate(parameters[:own]):
            meta = self.metadata.maybe(parameter)
            leaf = self.torch.graph.leaf("subgraph input", [scope.depth, index], meta, parameter.name)
            self.define(parameter, leaf)
        self._read_inner(inner, scope)
        returned = inner.graph.output_node().args[0]
        results = Call()
        outputs = [
            self.encode(one, "", results) for one in (returned if isinstance(returned, list | tuple) else [returned])
        ]
        return self.torch.subgraph(scope, outputs, results.refs, own, call)

    # Arguments and results

    def encode(self, argument: Any, kind: str, call: Call) -> bytes:
        """One argument, as ``pt2_arguments`` encodes the same one of a saved program."""
        if isinstance(argument, FxNode):
            found = self._values.get(argument)
            if type(found) is tuple:
                call.refs.append(found[1])
                return found[0]
            inner = self._graph_of(argument)
            if inner is None:
                raise bad(f"{argument.name} is used before it is made")
            return self._subgraph(inner, call)
        kind_of = type(argument)
        if kind_of is int and kind != "f":
            return NUMBERS.get(argument) or encode(argument)
        if isinstance(argument, (list, tuple)):
            return self._sequence(argument, kind, call)
        if argument is None or kind_of is bool or kind_of is str:
            return encode(argument)
        if kind_of is float or kind_of is int:
            return encode(float(argument) if argument == argument else math.nan)
        return _encoded_constant(argument)

    def _sequence(self, items: Sequence[Any], kind: str, call: Call) -> bytes:
        values, refs, whole, parts = self._values, call.refs, kind != "f", list[bytes]()
        for item in items:
            kind_of = type(item)
            if kind_of is int and whole:
                parts.append(NUMBERS.get(item) or encode(item))
                continue
            found = values.get(item) if kind_of is FxNode else None
            if type(found) is tuple:
                refs.append(found[1])
                parts.append(found[0])
            else:
                parts.append(self.encode(item, kind, call))
        return sequence(b"s1:[", parts)

    def _metas(self, node: FxNode) -> tuple[Meta, ...]:
        known = self._recorded.get(node)
        if known is not None:
            return known
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            return (self.metadata.tensor(value),)
        if value is None:
            return ()
        if isinstance(value, (list, tuple)):
            flat = [one for item in value for one in (item if isinstance(item, (list, tuple)) else [item])]
            return tuple(self.metadata.of(one) for one in flat if one is not None)
        return (self.metadata.of(value),)


@lru_cache(maxsize=256)
def _encoded_dtype(argument: Any) -> bytes:
    """Of a ``torch.dtype``, ``layout`` or ``memory_format``: there are few, and each is one object."""
    return encode(_constant(argument))


def _encoded_constant(argument: Any) -> bytes:
    few = isinstance(argument, (torch.dtype, torch.layout, torch.memory_format))
    return _encoded_dtype(argument) if few else encode(_constant(argument))


def _constant(argument: Any) -> Any:
    if isinstance(argument, torch.dtype):
        return ["dtype", dtype_name(argument)]
    if isinstance(argument, torch.device):
        return ["device"]
    if isinstance(argument, torch.memory_format):
        return ["memory_format", str(argument)[6:]]
    if isinstance(argument, torch.layout):
        return ["layout", layout_name(argument)]
    if isinstance(argument, complex):
        return ["complex", argument.real, argument.imag]
    if isinstance(argument, torch._ops.OpOverload):
        return ["operator", f"torch.ops.{argument}"]
    raise bad(f"an argument of type {type(argument).__name__} cannot be read")


def _attribute(module: GraphModule, target: str) -> Any:
    held: Any = module
    for part in target.split("."):
        held = _child(held, part)
    return held


def _child(holder: Any, name: str) -> Any:
    """``getattr``, without the detour over ``nn.Module.__getattr__``; None where there is nothing."""
    own = getattr(holder, "__dict__", {})
    for kind in _KEPT if name not in own else ():
        held = own[kind].get(name) if kind in own else None
        if held is not None:
            return held
    return getattr(holder, name, None)


def _returned(graph: FxGraph) -> Sequence[Any] | None:
    output = graph.output_node().args[0]
    return output if isinstance(output, list | tuple) else [output]


def _returns(target: Any, node: FxNode) -> Sequence[Any]:
    """A custom operator's results, one for each that its schema names."""
    returns, value = target._schema.returns, node.meta.get("val")
    if not returns:
        return []
    return [value] if len(returns) == 1 else list(value)


def _arity(output: Any) -> Any:
    if output is None:
        return "as_none"
    if isinstance(output, list | tuple):
        return ["as_tensors", len(output)]
    return next((tag for kind, tag in _TAGS if isinstance(output, kind)), "as_sym_float")


def _is_recorded(given: Mapping[str, Any]) -> bool:
    """As in ``pt2_nodes``: a metadata assertion that only repeats what is recorded."""
    tensor = given["a"].meta.get("val")
    expected = {name: value for name, value in given.items() if value is not None}
    if not isinstance(tensor, torch.Tensor) or set(expected) - {"a", "dtype", "layout", "device"}:
        return False
    dtype, layout = expected.get("dtype", tensor.dtype), expected.get("layout", tensor.layout)
    return bool(dtype == tensor.dtype and layout == tensor.layout)


def _is_value(argument: Any) -> bool:
    return isinstance(argument, FxNode) and isinstance(argument.meta.get("val"), (torch.Tensor, *_SYMBOLIC))


def _writes_in_place(graph: FxGraph) -> bool:
    # By id: hashing an overload runs Python code.
    targets = {id(node.target): node.target for node in graph.nodes if node.op == "call_function"}
    return any(_may_write(target) for target in targets.values())


def _may_write(target: Any) -> bool:
    op = known_operator(target) if isinstance(target, torch._ops.OpOverload) else None
    return isinstance(target, torch._ops.OperatorBase) and (
        op is None or bool(op.writes) or op.name in rules.WRITES_WHEN_TRUE
    )


_OPERATORS: dict[int, tuple[Any, Operator | None]] = {}
"""By the overload's ``id``, since hashing one runs Python code; kept with it, so that the ``id`` stays its own."""


def known_operator(target: Any) -> Operator | None:
    """The table's operator for an overload."""
    found = _OPERATORS.get(id(target))
    if found is None:
        found = _OPERATORS[id(target)] = (target, operator(str(target)))
    return found[1]
