"""Every known way in which loading, exporting or running a ``.pt2`` with torch 2.13 executes what the file says.

Each entry forges one archive whose payload creates the marker. It stands in the table of the first stage that
is enough for that: ``load`` is ``torch.export.load`` alone, ``export`` the conversion to ONNX after it, ``run`` a
call of ``program.module()``. ``dormant`` ones do not fire with torch 2.13 (why, each says), but nearly.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile import forge
from hostile.forge import Archive


@dataclass(frozen=True)
class Case:
    """What a way may use: the folder for its file, the marker, and the archives to start from."""

    folder: Path
    marker: Path
    programs: dict[str, Archive]

    @property
    def path(self) -> Path:
        return self.folder / "hostile.pt2"

    @property
    def code(self) -> str:
        return forge.code(self.marker)

    @property
    def undotted(self) -> str:
        """An expression of the same effect without a dot, for names that are split at dots."""
        return "exec('" + "".join(f"\\x{ord(char):02x}" for char in self.code) + "')"

    def edit(self, program: str, change: forge.Edit, **more: Any) -> Path:
        return self.programs[program].forge(self.path, change, **more)


COMPILER = shutil.which("cc")

Forge = Callable[[Case], Path]
AT_LOAD: dict[str, Forge] = {}
AT_EXPORT: dict[str, Forge] = {}
AT_RUN: dict[str, Forge] = {}
DORMANT: dict[str, Forge] = {}
WAYS = {"load": AT_LOAD, "export": AT_EXPORT, "run": AT_RUN, "dormant": DORMANT}
LEFT_BEHIND = frozenset(
    {"sample_inputs_are_a_pickle", "a_second_program_is_loaded_too", "compiled_library_is_loaded", "guard_is_code"}
)
"""What is no part of the program proper is left out; everything else is a reason to refuse the file."""


def way(stage: str) -> Callable[[Forge], Forge]:
    def add(make: Forge) -> Forge:
        WAYS[stage][make.__name__] = make
        return make

    return add


def graph(model: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = model["graph_module"]["graph"]
    return found


def signature(model: dict[str, Any]) -> dict[str, Any]:
    """The calling convention of the whole program."""
    found: dict[str, Any] = model["graph_module"]["module_call_graph"][0]["signature"]
    return found


def rename(content: Any, old: str, new: str) -> Any:
    """``content`` with every string that is ``old`` replaced, keys included."""
    if isinstance(content, dict):
        return {rename(key, old, new): rename(value, old, new) for key, value in content.items()}
    if isinstance(content, list):
        return [rename(item, old, new) for item in content]
    return new if content == old else content


def renamed(old: str, new: str) -> forge.Edit:
    def change(model: dict[str, Any]) -> None:
        changed = rename(model, old, new)
        model.clear()
        model.update(changed)

    return change


def named(items: list[Any], **wanted: Any) -> Any:
    return next(item for item in items if all(item.get(key) == value for key, value in wanted.items()))


# Pickles


@way("load")
def sample_inputs_are_a_pickle(case: Case) -> Path:
    return case.edit("conv", lambda _: None, members={forge.SAMPLE: forge.pickled(case.marker)})


@way("load")
def weight_is_a_pickle(case: Case) -> Path:
    def change(table: dict[str, Any]) -> None:
        table["config"]["l.weight"]["use_pickle"] = True

    name = case.programs["conv"].json(forge.WEIGHTS)["config"]["l.weight"]["path_name"]
    pickled = {f"data/weights/{name}": forge.pickled(case.marker)}
    return case.programs["conv"].forge(case.path, weights=change, members=pickled)


@way("load")
def constant_is_a_pickle(case: Case) -> Path:
    def change(table: dict[str, Any]) -> None:
        table["config"]["scale"] |= {"use_pickle": True, "path_name": "tensor_9"}

    pickled = {"data/constants/tensor_9": forge.pickled(case.marker)}
    return case.programs["conv"].forge(case.path, constants=change, members=pickled)


@way("load")
def constant_is_an_opaque_object(case: Case) -> Path:
    """``pickle.loads`` of every constant whose member is called ``opaque_obj_…``, used or not."""

    def change(table: dict[str, Any]) -> None:
        table["config"]["more"] = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
        table["config"]["more"]["tensor_meta"] = None

    pickled = {"data/constants/opaque_obj_0": forge.pickled(case.marker)}
    return case.programs["conv"].forge(case.path, constants=change, members=pickled)


@way("load")
def all_weights_are_one_pickle(case: Case) -> Path:
    """The layout of torch 2.8 and 2.9, which torch 2.13 still reads."""
    return case.edit("conv", lambda _: None, members={"data/weights/model.pt": forge.pickled(case.marker)})


@way("load")
def all_constants_are_one_pickle(case: Case) -> Path:
    return case.edit("conv", lambda _: None, members={"data/constants/model.pt": forge.pickled(case.marker)})


@way("load")
def a_second_program_is_loaded_too(case: Case) -> Path:
    archive = case.programs["conv"]
    second = {name.replace("/model", "/other"): content for name, content in archive.members.items()}
    second = {name: content for name, content in second.items() if name not in archive.members}
    second["data/sample_inputs/other.pt"] = forge.pickled(case.marker)
    return archive.forge(case.path, members=second)


@way("load")
def the_older_format_is_all_pickles(case: Case) -> Path:
    """Where the archive cannot be read, torch tries the file again as one of torch 2.7."""
    pickled = forge.pickled(case.marker)
    members = {"version": b"8.20", "serialized_exported_program.json": case.programs["conv"].members[forge.MODEL]}
    members |= {f"serialized_{part}.pt": pickled for part in ("state_dict", "constants", "example_inputs")}
    return forge.write(case.path, members, root="")


# Compiled code


@way("load")
def compiled_library_is_loaded(case: Case) -> Path:
    """``torch.export.load`` opens the library of every compiled model in the archive (AOTInductor)."""
    metadata = json.dumps({"AOTI_DEVICE_KEY": "cpu"}).encode()
    members = {"a.wrapper.so": library(case), "a.wrapper_metadata.json": metadata}
    members = {f"data/aotinductor/model/{name}": content for name, content in members.items()}
    return case.programs["conv"].forge(case.path, members=members)


def library(case: Case) -> bytes:
    """A shared library that creates the marker as soon as it is loaded; junk where there is no compiler."""
    source, made = case.folder / "payload.c", case.folder / "payload.so"
    body = f'FILE *file = fopen("{case.marker}", "w"); if (file) fclose(file);'
    source.write_text(f"#include <stdio.h>\n__attribute__((constructor)) static void run(void) {{ {body} }}\n")
    if COMPILER is None:
        return b"not a library"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", made, source], check=True, timeout=60)
    return made.read_bytes()


# Expressions


def expression(program: str, pick: Callable[[dict[str, Any]], dict[str, Any]]) -> Forge:
    """SymPy evaluates the text as Python."""

    def make(case: Case) -> Path:
        def change(model: dict[str, Any]) -> None:
            value = pick(graph(model))
            value["as_expr"] = {"expr_str": f"[{case.code}, Integer(3)][1]", "hint": None}
            value.pop("as_int", None)

        return case.edit(program, change)

    return make


AT_LOAD["size_is_an_expression"] = expression("batch", lambda graph: graph["tensor_values"]["x"]["sizes"][0])
AT_LOAD["stride_is_an_expression"] = expression("batch", lambda graph: graph["tensor_values"]["x"]["strides"][0])
AT_LOAD["integer_is_an_expression"] = expression("batch", lambda graph: next(iter(graph["sym_int_values"].values())))
AT_LOAD["truth_is_an_expression"] = expression("unknown", lambda graph: next(iter(graph["sym_bool_values"].values())))
AT_LOAD["float_is_an_expression"] = expression("derived", lambda graph: next(iter(graph["sym_float_values"].values())))


@way("load")
def size_inside_a_branch_is_an_expression(case: Case) -> Path:
    def change(model: dict[str, Any]) -> None:
        inner = branch(model)["graph"]["tensor_values"]
        next(iter(inner.values()))["sizes"][0] = {"as_expr": {"expr_str": case.code, "hint": None}}

    return case.edit("branches", change)


def branch(model: dict[str, Any]) -> dict[str, Any]:
    """The first branch of the program's ``cond``."""
    call = named(graph(model)["nodes"], target="torch.ops.higher_order.cond")
    found: dict[str, Any] = next(given["arg"]["as_graph"] for given in call["inputs"] if "as_graph" in given["arg"])
    return found


# Names that end up in the Python code that FX generates


@way("load")
def input_name_is_code(case: Case) -> Path:
    return case.edit("batch", renamed("x", f"x={case.code}"))


@way("load")
def constant_input_name_is_code(case: Case) -> Path:
    def change(model: dict[str, Any]) -> None:
        spec = next(spec for spec in model["graph_module"]["signature"]["input_specs"] if "constant_input" in spec)
        spec["constant_input"]["name"] = f"mode={case.code}"

    return case.edit("text", change)


# Descriptions of containers


def structure(which: str, kind: str, context: Callable[[str], Any]) -> Forge:
    """Wrap a leaf of the in- or out-structure in a container whose description imports a module."""

    def make(case: Case) -> Path:
        (case.folder / "payload.py").write_text(f"{case.code}\nclass Kind:\n    pass\n")

        def change(model: dict[str, Any]) -> None:
            leaf = {"type": None, "context": None, "children_spec": []}
            wrapped = {"type": kind, "context": context("payload"), "children_spec": [leaf]}
            signature(model)[which] = json.dumps([1, wrapped])

        return case.edit("conv", change)

    return make


def _factory(module: str) -> Any:
    return {"default_factory_module": module, "default_factory_name": "Kind", "dict_context": ["k"]}


def _enumerated(module: str) -> str:
    return json.dumps([{"__enum__": True, "fqn": f"{module}:Kind", "name": "k"}])


AT_LOAD["default_factory_is_imported"] = structure("out_spec", "collections.defaultdict", _factory)
AT_LOAD["enumeration_is_imported"] = structure("in_spec", "builtins.dict", _enumerated)


# What is run when the program is exported, or called


@way("export")
def guard_is_code(case: Case) -> Path:
    def change(model: dict[str, Any]) -> None:
        model["guards_code"] = [f"{case.code} is None"]

    return case.edit("batch", change)


@way("dormant")
def value_name_is_code(case: Case) -> Path:
    """A name that can be assigned to and read. Torch copies the graph before it runs it, and so renames it."""
    return case.edit("batch", renamed("linear", f"self.__dict__[({case.code}, 'y')[1]]"))


@way("dormant")
def value_name_inside_a_branch_is_code(case: Case) -> Path:
    def change(model: dict[str, Any]) -> None:
        inner = branch(model)
        inner["graph"] = rename(inner["graph"], "linear", f"self.__dict__[({case.code}, 'y')[1]]")

    return case.edit("branches", change)


@way("run")
def branch_name_is_code(case: Case) -> Path:
    def change(model: dict[str, Any]) -> None:
        branch(model)["name"] = f'__class__"), {case.undotted}, (self, "x'

    return case.edit("branches", change)


@way("run")
def keyword_of_a_call_is_code(case: Case) -> Path:
    def change(model: dict[str, Any]) -> None:
        call = named(graph(model)["nodes"], target="torch.ops.higher_order.cond")
        added = {"name": f"a={case.code}, b", "arg": {"as_int": 1}, "kind": 2}
        call["inputs"].append(added)

    return case.edit("branches", change)


@way("export")
def argument_name_is_code(case: Case) -> Path:
    def change(model: dict[str, Any]) -> None:
        signature(model)["forward_arg_names"] = ["x", f"y={case.code}"]

    return case.edit("batch", change)


@way("dormant")
def keyword_of_the_program_is_code(case: Case) -> Path:
    """It becomes the key of a dictionary in generated code, which runs for a caller who gives that very keyword."""

    def change(model: dict[str, Any]) -> None:
        call = signature(model)
        leaf = {"type": None, "context": None, "children_spec": []}
        tuple_of = {"type": "builtins.tuple", "context": "null"}
        keys = json.dumps([f"a':{case.code}, 'b"])
        keywords = {"type": "builtins.dict", "context": keys, "children_spec": [leaf]}
        both = {**tuple_of, "children_spec": [{**tuple_of, "children_spec": []}, keywords]}
        call["in_spec"] = json.dumps([1, both])

    return case.edit("conv", change)


@way("run")
def parameter_name_is_code(case: Case) -> Path:
    """A dotted name whose parts are no identifiers is put between quotes as it is."""
    change = renamed("l.weight", f'__class__"), {case.undotted}, (self, "x')
    return case.programs["batch"].forge(case.path, change, weights=change)


@way("export")
def string_given_as_an_input_is_code(case: Case) -> Path:
    """A string among the inputs is put between quotes into the guards, as it is."""

    def change(model: dict[str, Any]) -> None:
        text = f"' or {case.code} or '"
        specs = model["graph_module"]["signature"]["input_specs"]
        at = next(index for index, spec in enumerate(specs) if "constant_input" in spec)
        specs[at]["constant_input"]["value"] = {"as_string": text}
        graph(model)["inputs"][at] = {"as_string": text}

    return case.edit("text", change)


def calling(case: Case, target: str, *arguments: dict[str, Any]) -> Path:
    """Let the program begin with a call of ``target``."""

    def change(model: dict[str, Any]) -> None:
        node = {
            "target": target,
            "inputs": [{"name": "", "arg": argument, "kind": 1} for argument in arguments],
            "outputs": [{"as_none": True}],
            "metadata": {},
            "is_hop_single_tensor_return": None,
            "name": "call",
        }
        graph(model)["nodes"].insert(0, node)

    return case.edit("batch", change)


@way("dormant")
def function_is_an_argument(case: Case) -> Path:
    """What attributes of torch lead to can be an argument, and ``wrap`` calls its own: but the code that FX writes
    for a function (``<built-in …>``) is none."""
    system = {"as_operator": "torch.os.system"}
    return calling(case, "torch.ops.higher_order.wrap", system, {"as_string": f"touch {case.marker}"})


@way("export")
def class_is_imported_and_applied(case: Case) -> Path:
    (case.folder / "payload.py").write_text(f"{case.code}\nclass Kind:\n    pass\n")
    target = "torch.export.custom_ops._call_custom_autograd_function_in_pre_dispatch"
    return calling(case, target, {"as_string": "payload.Kind"})


@way("run")
def operator_writes_a_file(case: Case) -> Path:
    """``aten.from_file`` with ``shared`` creates the file that it names, and maps it."""

    def change(model: dict[str, Any]) -> None:
        given = {"filename": {"as_string": str(case.marker)}, "shared": {"as_bool": True}, "size": {"as_int": 4}}
        node = {
            "target": "torch.ops.aten.from_file.default",
            "inputs": [{"name": name, "arg": argument, "kind": 1} for name, argument in given.items()],
            "outputs": [{"as_tensor": {"name": "mapped"}}],
            "metadata": {},
            "is_hop_single_tensor_return": None,
            "name": "mapped",
        }
        graph(model)["nodes"].insert(0, node)
        graph(model)["tensor_values"]["mapped"] = graph(model)["tensor_values"]["p_l_bias"]

    return case.edit("batch", change)
