"""The canonical form of hand-made graphs."""

from __future__ import annotations

from typing import Any

from farm.canonical import encode
from farm.graph import Canonical, Graph, Input, Node, Output, canonicalise
from farm.graph_symbols import Call, Expr, Sym, parse


class Built:
    """A graph of float tensors, built call by call."""

    def __init__(self, *shapes: tuple[Expr, ...]) -> None:
        self.graph = Graph()
        self.inputs = []
        for position, shape in enumerate(shapes):
            meta = self.graph.meta("float32", shape)
            node = self.graph.leaf("input", [position], meta, f"in{position}")
            self.graph.inputs.append(Input(f"in{position}", node, meta))
            self.inputs.append(node)

    def call(self, op: str, *operands: int, name: str = "", **more: Any) -> int:
        shape: tuple[Expr, ...] = more.pop("shape", (2,))
        node = Node(op, encode([op, sorted(more.items())]), operands, (self.graph.meta("float32", shape),), name)
        return self.graph.add(node)

    def weight(self, tensor: int, name: str = "w") -> int:
        return self.graph.lifted(tensor, self.graph.meta("float32", (2,)), name)

    def returns(self, *nodes: int) -> Canonical:
        self.graph.outputs += [Output("user_output", (node, ())) for node in nodes]
        return canonicalise(self.graph)


def digest_of(*nodes: int, built: Built) -> str:
    return built.returns(*nodes).structure_digest


def test_names_dead_code_and_order_drop_out() -> None:
    one = Built((2,))
    a, b = one.call("sin", 0, name="a"), one.call("cos", 0, name="b")
    other = Built((2,))
    other.call("tan", 0, name="dead")
    d, c = other.call("cos", 0, name="zzz"), other.call("sin", 0, name="yyy")
    assert digest_of(one.call("mul", a, b), built=one) == digest_of(other.call("mul", c, d), built=other)


def test_wiring_arguments_and_outputs_stay_in() -> None:
    found = set()
    for build in (
        lambda g: [g.call("sub", 0, 1)],
        lambda g: [g.call("sub", 1, 0)],
        lambda g: [g.call("sub", 0, 0)],
        lambda g: [g.call("sub", 0, 1, alpha=1)],
        lambda g: [g.call("sub", 0, 1, alpha=1.0)],
        lambda g: [g.call("sub", 0, 1, alpha=True)],
        lambda g: [g.call("sub", 0, 1, shape=(3,))],
        lambda g: [g.call("sub", 0, 1), 0],
        lambda g: [0, g.call("sub", 0, 1)],
    ):
        built = Built((2,), (2,))
        found.add(digest_of(*build(built), built=built))
    assert len(found) == 9


def test_equal_nodes_are_one() -> None:
    twice, once = Built((2,)), Built((2,))
    sine = once.call("sin", 0)
    first = digest_of(twice.call("add", twice.call("sin", 0), twice.call("sin", 0)), built=twice)
    assert first == digest_of(once.call("add", sine, sine), built=once)


def test_lifted_tensors_are_numbered_by_first_use_and_told_apart() -> None:
    def product(first: int, second: int) -> Canonical:
        built = Built((2,))
        weights = [built.weight(5, "x"), built.weight(9, "y")]
        return built.returns(built.call("mm", built.call("mm", 0, weights[first]), weights[second]))

    assert product(0, 1).structure_digest == product(1, 0).structure_digest
    assert product(0, 1).lifted == [5, 9]
    assert product(1, 0).lifted == [9, 5]
    assert product(0, 0).structure_digest != product(0, 1).structure_digest


def test_two_names_of_one_tensor_are_one() -> None:
    tied, twice = Built((2,)), Built((2,))
    a, b = tied.weight(3, "a"), tied.weight(3, "b")
    only = twice.weight(0)
    first = tied.returns(tied.call("mm", tied.call("mm", 0, a), b))
    second = twice.returns(twice.call("mm", twice.call("mm", 0, only), only))
    assert first.structure_digest == second.structure_digest


def test_ranges_count_where_their_symbols_are_used() -> None:
    def ranged(**ranges: tuple[int | None, int | None]) -> str:
        built = Built((Sym("a"),))
        built.graph.ranges |= ranges
        return digest_of(built.call("sin", 0, shape=(Sym("a"),)), built=built)

    assert ranged(a=(2, 8)) != ranged(a=(2, 9))
    assert ranged(a=(2, 8)) == ranged(a=(2, 8), unused=(1, 4))
    assert ranged(a=(2, None)) != ranged(a=(2, 8)) != ranged()


def test_ranges_of_expressions_count_only_where_they_say_more() -> None:
    def ranged(low: int, high: int) -> str:
        built = Built((Sym("a"),))
        built.graph.ranges["a"] = (2, 8)
        built.graph.expression_ranges.append((parse("2*a"), (low, high)))
        return digest_of(0, built=built)

    assert ranged(4, 16) == ranged(0, 99)
    assert ranged(4, 16) != ranged(6, 16)
    assert ranged(4, 16) != ranged(4, 14)


def test_symbols_are_one_or_two() -> None:
    assert digest_of(0, built=Built((Sym("a"), Sym("a")))) != digest_of(0, built=Built((Sym("a"), Sym("b"))))
    assert digest_of(0, built=Built((Sym("a"), Sym("b")))) == digest_of(0, built=Built((Sym("b"), Sym("a"))))


def test_effects_keep_their_order_and_are_never_dead() -> None:
    def drawn(*ops: str) -> str:
        built = Built((2,))
        built.graph.effects = [built.call(op, 0, ordinal=index) for index, op in enumerate(ops)]
        return digest_of(0, built=built)

    assert len({drawn(), drawn("rand"), drawn("rand", "rand"), drawn("rand", "randn"), drawn("randn", "rand")}) == 5


def test_assertions_are_a_set_less_what_the_ranges_imply() -> None:
    def asserted(*conditions: str) -> str:
        built = Built((Sym("a"),))
        built.graph.ranges["a"] = (2, 8)
        for condition in conditions:
            node = built.call("assert", 0, condition=condition)
            built.graph.asserts.append((node, parse(condition)))
        return digest_of(0, built=built)

    assert asserted("a >= 2") == asserted("a <= 8", "a != 0") == asserted()
    assert asserted("a >= 3", "a <= 7") == asserted("a <= 7", "a >= 3", "a <= 7")
    assert asserted("a >= 3") != asserted()


def test_writes_tie_reads_to_their_place() -> None:
    def program(*, read_first: bool) -> str:
        built = Built((2,))
        copy = built.call("clone", 0)
        early = built.call("mul", copy) if read_first else -1
        write = built.call("add_", copy)
        built.graph.nodes[write].writes, built.graph.nodes[write].aliases = (0,), True
        late = built.call("mul", copy) if not read_first else early
        return digest_of(late, built=built)

    assert program(read_first=True) != program(read_first=False)


def test_the_order_of_independent_writes_drops_out() -> None:
    def program(*, left_first: bool) -> str:
        built = Built((2,), (2,))
        copies = [built.call("clone", 0), built.call("clone", 1)]
        for index in (0, 1) if left_first else (1, 0):
            write = built.call("add_", copies[index])
            built.graph.nodes[write].writes, built.graph.nodes[write].aliases = (0,), True
        return digest_of(built.call("mul", *copies), built=built)

    assert program(left_first=True) == program(left_first=False)


def test_inputs_written_to_are_part_of_what_a_program_does() -> None:
    def program(*, writes: bool) -> Canonical:
        built = Built((2,))
        node = built.call("add", 0)
        built.graph.nodes[node].writes = (0,) if writes else ()
        return built.returns(built.call("full"))

    assert program(writes=True).structure_digest != program(writes=False).structure_digest
    assert program(writes=True).written == [0]


def test_node_digests_are_by_content() -> None:
    one, other = Built((2,)), Built((2,))
    first = one.returns(one.call("sin", 0), one.call("cos", one.call("sin", 0)))
    second = other.returns(other.call("exp", 0), other.call("sin", 0))
    mine, theirs = ({found.node_digest(node) for node in found.order} for found in (first, second))
    assert len(mine & theirs) == 2  # the input and its sine
    assert all(one.startswith("sha256:") and len(one) == 71 for one in mine)


def test_depth_is_no_limit() -> None:
    built = Built((2,))
    node = 0
    for _ in range(100_000):
        node = built.call("sin", node)
    found = built.returns(node)
    assert len(found.order) == 100_001


def test_results_of_a_node_are_told_apart() -> None:
    def second_of(path: tuple[int, ...]) -> str:
        built = Built((2,))
        node = built.call("split", 0)
        built.graph.outputs.append(Output("user_output", (node, path)))
        return canonicalise(built.graph).structure_digest

    assert len({second_of(()), second_of((0,)), second_of((1,)), second_of((1, 0))}) == 4


def test_canonicalising_again_gives_the_same() -> None:
    built = Built((Sym("k"), Call("Mul", (2, Sym("k")))))
    node = built.call("sin", 0, shape=(Sym("k"),))
    assert built.returns(node).structure_digest == canonicalise(built.graph).structure_digest


def test_devices_only_count_where_there_are_two() -> None:
    def on(*devices: str) -> str:
        graph = Graph()
        for position, device in enumerate(devices):
            meta = graph.meta("float32", (2,), device)
            graph.inputs.append(Input("x", graph.leaf("input", [position], meta), meta))
        return canonicalise(graph).structure_digest

    assert on("cpu", "cpu") == on("cuda:1", "cuda:1")
    assert on("cpu", "cpu") != on("cpu", "cuda:0")
