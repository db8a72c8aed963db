"""Rows of the table: what reaches TensorRT, from precision to hardware compatibility. Pure data."""

from __future__ import annotations

from farm.settings.kinds import (
    OPERATORS,
    PATTERNS,
    PRECISIONS,
    Bool,
    Bytes,
    Choice,
    DeclaredDigest,
    Device,
    Dtype,
    Float,
    Int,
    Optional,
)
from farm.settings.model import Field, Role, Stage, inert, moot, refused

CORE = "Core Parameters"
TUNING = "Optimization Tuning"
TYPING = "Precision and Typing"
AUTOCAST = "Autocast (Automatic Mixed Precision)"
WEIGHTS = "Weight Management"
HARDWARE = "Hardware Compatibility"

LISTED = (
    'Specification, Engine-Invariant Settings: "Changing any of the following settings invalidates cached '
    'engines — the engine must be rebuilt from scratch".'
)
UNLISTED = (
    'Specification, Engine-Invariant Settings: "Settings not in this list (e.g., debug, dryrun, '
    'pass_through_build_failures) can be changed without invalidating the cache".'
)
BY_VALUE = "Keyed as given."

ONE_ENGINE = moot("one engine holds the whole graph here")
RTX_INERT = inert("TensorRT-RTX 1.x builds the same engine whatever it says", below=(2,))
NO_AUTOCAST = refused(
    "this builder converts the model as it is; cast the model to the precision you want before exporting "
    "it, "
    "or build with torch_tensorrt"
)
NO_PYTORCH_PART = refused(
    "this builder makes one engine of the whole model and leaves nothing to PyTorch; build with torch_tensorrt"
)
STRONG_TYPING = "TensorRT-RTX networks are always strongly typed: cast the model before exporting it"

_CORE = (
    Field(
        "enabled_precisions", PRECISIONS, frozenset({"float32"}), CORE, Role.ENGINE,
        "Precisions that TensorRT may choose kernels of in a weakly typed network.",
        "With use_explicit_typing=false float32 is added, as TensorRT never does without it. With strong "
        "typing "
        "anything beyond float32 is refused. An empty set is the default.",
        'Specification: "Adding a lower precision does not force its use — TRT selects the best kernel per '
        'layer". Torch-TensorRT 2.9–2.12 raise for it under strong typing; 2.13 dropped it.',
        tensorrt_rtx=refused(STRONG_TYPING),
        until=(2, 12), deprecated=True,
        dropped=moot("Torch-TensorRT dropped it in 2.13 and takes precisions from the model's own dtypes"),
    ),
    Field(
        "min_block_size", Int(1), 5, CORE, Role.GRAPH,
        "Fewest operators in a row that are worth an engine of their own.",
        "Keyed by value for whole programs; a subgraph has already been cut by it.",
        'Specification: "Subgraphs smaller than this are merged back into PyTorch".',
        tensorrt=ONE_ENGINE, tensorrt_rtx=ONE_ENGINE, stage=Stage.PROGRAM,
    ),
    Field(
        "torch_executed_ops", OPERATORS, frozenset(), CORE, Role.GRAPH,
        "Operators that stay in PyTorch although TensorRT could take them.",
        "An unordered set of qualified names, keyed for whole programs; a subgraph has already been cut "
        "by it.",
        'Specification: "Force specific torch.ops targets to run in PyTorch regardless of converter '
        'support".',
        tensorrt=NO_PYTORCH_PART, tensorrt_rtx=NO_PYTORCH_PART, stage=Stage.PROGRAM,
    ),
    Field(
        "require_full_compilation", Bool(), False, CORE, Role.GRAPH,
        "Fail unless every operator went into TensorRT.",
        "Keyed by value for whole programs: it also decides whether small blocks are kept.",
        'Specification: "Raise an error if any node cannot be placed in TensorRT".',
        tensorrt=moot("this builder always converts everything or fails"),
        tensorrt_rtx=moot("this builder always converts everything or fails"),
        stage=Stage.PROGRAM,
    ),
    Field(
        "device", Device(), None, CORE, Role.FORM,
        "The GPU, or DLA core, to compile for.",
        "The number of a GPU vanishes: it picks a GPU of one machine, and the target already says which "
        "kind of "
        "GPU the engine is for. A DLA core is keyed, as its engine is another artefact.",
        'Specification: "torch_tensorrt.Device specifying the GPU to compile for". Form by judgement: '
        'only DLA '
        "changes what comes out.",
        tensorrt_rtx=refused("TensorRT-RTX ignores DLA without saying so; build with tensorrt for DLA"),
    ),
    Field(
        "use_python_runtime", Optional(Bool()), False, CORE, Role.WORKFLOW,
        "Run engines through Python (true), C++ (false) or whichever is there (none).",
        "In neither key nor recipe. Cross-compiling for Windows turns it off.",
        UNLISTED,
        tensorrt=moot("an engine carries no runtime"), tensorrt_rtx=moot("an engine carries no runtime"),
        until=(2, 12), stage=Stage.PROGRAM,
        dropped=moot("Torch-TensorRT merged its runtimes in 2.13 and picks one itself"),
    ),
    Field(
        "pass_through_build_failures", Bool(), False, CORE, Role.WORKFLOW,
        "Raise when an engine cannot be built, where PyTorch would otherwise take over.",
        "In neither key nor recipe.",
        UNLISTED,
        tensorrt=moot("a build that fails is always reported here"),
        tensorrt_rtx=moot("a build that fails is always reported here"),
        stage=Stage.PROGRAM,
    ),
)  # fmt: skip

_TUNING = (
    Field(
        "optimization_level", Optional(Int(0, 5)), None, TUNING, Role.ENGINE,
        "How long TensorRT may search for faster kernels: 0 builds soonest, 5 runs fastest.",
        "none is the builder's default, 3.",
        'Specification: "None (TRT default = 3)".',
        tensorrt_rtx=RTX_INERT,
    ),
    Field(
        "workspace_size", Bytes(), 0, TUNING, Role.SEARCH,
        "Most scratch memory that the build may use on the GPU; 0 leaves it to TensorRT.",
        "In the recipe only; 0 is unset.",
        'Specification: "0 means TRT picks a size automatically". Not on its engine-invariant list.',
    ),
    Field(
        "num_avg_timing_iters", Int(1), 1, TUNING, Role.SEARCH,
        "How often each kernel is timed before one is chosen.",
        "In the recipe only.",
        'Specification: "Number of iterations used to time and select kernels during the build phase". '
        'Not on '
        "its engine-invariant list.",
        tensorrt_rtx=RTX_INERT,
    ),
    Field(
        "max_aux_streams", Optional(Int(0)), None, TUNING, Role.ENGINE,
        "Most extra CUDA streams that an engine may run on; none leaves it to TensorRT, 0 means none.",
        BY_VALUE, LISTED, tensorrt_rtx=RTX_INERT,
    ),
    Field(
        "tiling_optimization_level", Choice(("none", "fast", "moderate", "full")), "none",
        TUNING, Role.ENGINE,
        "How hard TensorRT searches for ways to tile layers through the L2 cache.",
        BY_VALUE, LISTED, tensorrt_rtx=RTX_INERT,
    ),
    Field(
        "l2_limit_for_tiling", Bytes(-1), -1, TUNING, Role.ENGINE,
        "L2 cache that tiling may count on; -1 sets no limit.",
        "Vanishes when tiling_optimization_level is none.",
        'Specification: "Target L2 cache usage limit in bytes for tiling optimization"; no tiling, no '
        'limit.',
        tensorrt_rtx=RTX_INERT,
    ),
    Field(
        "sparse_weights", Bool(), False, TUNING, Role.ENGINE,
        "Let TensorRT use kernels for 2:4 sparse weights.",
        "Keyed as given. TensorRT reads the weights' values to see whether they are sparse.",
        LISTED, tensorrt_rtx=RTX_INERT,
    ),
    Field(
        "disable_tf32", Bool(), False, TUNING, Role.ENGINE,
        "Compute float32 in float32, without TensorFloat-32.",
        BY_VALUE, LISTED,
    ),
)  # fmt: skip

_TYPING = (
    Field(
        "truncate_double", Bool(), False, TYPING, Role.GRAPH,
        "Narrow float64 inputs and weights to float32 instead of refusing them.",
        "Keyed by value: conversion reads it.",
        'Specification: "Automatically truncate float64 (double) inputs and weights to float32 before '
        'passing to '
        'TRT".',
    ),
    Field(
        "use_fp32_acc", Bool(), False, TYPING, Role.GRAPH,
        "Accumulate float16 matrix products in float32.",
        "Keyed by value: conversion reads it. A contradiction with use_explicit_typing=false.",
        'Specification: "Requires use_explicit_typing=True".',
        tensorrt=NO_AUTOCAST, tensorrt_rtx=NO_AUTOCAST,
    ),
    Field(
        "use_explicit_typing", Bool(), True, TYPING, Role.GRAPH,
        "Strong typing: every layer computes in the dtypes that the model states.",
        "enable_autocast sets it. Keyed by value: conversion reads it.",
        'Specification: "When enable_autocast=True, use_explicit_typing is automatically set to True as '
        'well".',
        tensorrt_rtx=refused(STRONG_TYPING), until=(2, 12),
        dropped=refused("Torch-TensorRT has been strongly typed always since 2.13; use autocast instead"),
    ),
)  # fmt: skip

_VANISHES = "Vanishes unless enable_autocast is on and autocast_low_precision_type is set."
_NO_CAST = (
    'Specification: "None disables actual casting (no-op even if enable_autocast=True)"; '
    "without casting none of the rules for it can matter."
)

_AUTOCAST = (
    Field(
        "enable_autocast", Bool(), False, AUTOCAST, Role.ENGINE,
        "Lower what is numerically safe to a reduced precision, and keep the rest in float32.",
        "Sets use_explicit_typing; beyond that it counts as off while autocast_low_precision_type is none.",
        'Specification: "None disables actual casting (no-op even if enable_autocast=True)".',
        tensorrt=NO_AUTOCAST, tensorrt_rtx=NO_AUTOCAST, since=(2, 10),
    ),
    Field(
        "autocast_low_precision_type", Optional(Dtype(("float16", "bfloat16"))), None, AUTOCAST, Role.ENGINE,
        "The precision that autocast lowers to; none casts nothing.",
        _VANISHES, _NO_CAST, tensorrt=NO_AUTOCAST, tensorrt_rtx=NO_AUTOCAST, since=(2, 10),
    ),
    Field(
        "autocast_excluded_nodes", PATTERNS, frozenset(), AUTOCAST, Role.ENGINE,
        "Nodes that stay in float32, as patterns over their names.",
        _VANISHES + " An unordered set; a key for a known program holds the nodes that match instead.",
        _NO_CAST, tensorrt=NO_AUTOCAST, tensorrt_rtx=NO_AUTOCAST, since=(2, 10),
    ),
    Field(
        "autocast_excluded_ops", OPERATORS, frozenset(), AUTOCAST, Role.ENGINE,
        "Operators that stay in float32.",
        _VANISHES + " An unordered set of qualified names.",
        _NO_CAST, tensorrt=NO_AUTOCAST, tensorrt_rtx=NO_AUTOCAST, since=(2, 10),
    ),
    Field(
        "autocast_max_output_threshold", Float(), 512.0, AUTOCAST, Role.ENGINE,
        "Nodes whose outputs are larger than this stay in float32.",
        _VANISHES, _NO_CAST, tensorrt=NO_AUTOCAST, tensorrt_rtx=NO_AUTOCAST, since=(2, 10),
    ),
    Field(
        "autocast_max_depth_of_reduction", Optional(Int(0)), None, AUTOCAST, Role.ENGINE,
        "Nodes that more reductions than this feed into stay in float32; none sets no limit.",
        _VANISHES, _NO_CAST, tensorrt=NO_AUTOCAST, tensorrt_rtx=NO_AUTOCAST, since=(2, 10),
    ),
    Field(
        "autocast_calibration_dataloader", Optional(DeclaredDigest()), None, AUTOCAST, Role.ENGINE,
        "Data to measure each node's range with, as the digest that its owner declares.",
        _VANISHES + " Keyed by the declared digest; data without one is an error.",
        _NO_CAST, tensorrt=NO_AUTOCAST, tensorrt_rtx=NO_AUTOCAST, since=(2, 10),
    ),
)  # fmt: skip

_WEIGHTS = (
    Field(
        "immutable_weights", Bool(), True, WEIGHTS, Role.ENGINE,
        "Bake the weights in; false builds an engine whose weights can be replaced.",
        BY_VALUE, LISTED,
    ),
    Field(
        "refit_identical_engine_weights", Bool(), False, WEIGHTS, Role.ENGINE,
        "Refit weights that several engines share in one go; the engine then relies on their being equal.",
        "Vanishes with a warning when immutable_weights is true.",
        'Specification: "Requires immutable_weights=False".',
    ),
    Field(
        "strip_engine_weights", Bool(), False, WEIGHTS, Role.FORM,
        "Leave the weights out of the engine file; they are refitted before it runs.",
        "Vanishes with a warning when immutable_weights is true; keyed otherwise.",
        'Specification: "weights must be refitted before the engine can run". Engine-invariant in '
        'Torch-TensorRT '
        "before TensorRT 10.14.",
    ),
    Field(
        "enable_weight_streaming", Bool(), False, WEIGHTS, Role.ENGINE,
        "Stream weights from host memory, for models larger than the GPU's.",
        "Keyed as given. A contradiction with use_explicit_typing=false.",
        LISTED + " Torch-TensorRT 2.9–2.12 raise for it without strong typing.",
    ),
)  # fmt: skip

_HARDWARE = (
    Field(
        "version_compatible", Bool(), False, HARDWARE, Role.ENGINE,
        "Build an engine that newer TensorRT versions can load too.",
        BY_VALUE, LISTED,
    ),
    Field(
        "hardware_compatible", Bool(), False, HARDWARE, Role.ENGINE,
        "Build an engine that runs on any GPU from Ampere on.",
        BY_VALUE, LISTED,
        tensorrt_rtx=refused(
            "TensorRT-RTX ignores it without saying so; ask for the set of compute capabilities instead: "
            "sm_86+sm_89"
        ),
    ),
    Field(
        "engine_capability", Choice(("STANDARD", "SAFETY", "DLA_STANDALONE")), "STANDARD",
        HARDWARE, Role.ENGINE,
        "Restrict kernels to those for safe GPU or stand-alone DLA use.",
        BY_VALUE, LISTED,
        tensorrt_rtx=refused("TensorRT-RTX builds STANDARD engines only; build with tensorrt"),
    ),
    Field(
        "enable_cross_compile_for_windows", Bool(), False, HARDWARE, Role.FORM,
        "Build on Linux an engine that runs on Windows (x86-64).",
        "Keyed by value; turns use_python_runtime, lazy_engine_init, cache_built_engines and "
        "reuse_cached_engines off, with a warning. A contradiction with DLA.",
        'Specification: "Disables Python runtime, lazy engine init, and engine caching".',
        tensorrt_rtx=refused("TensorRT-RTX builds a Linux engine anyway; use tensorrt or torch_tensorrt"),
    ),
)  # fmt: skip

BUILD_ROWS = (*_CORE, *_TUNING, *_TYPING, *_AUTOCAST, *_WEIGHTS, *_HARDWARE)
