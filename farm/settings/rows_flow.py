"""Rows of the table: memory, partitioning, workflow, caching, DLA, and newer fields. Pure data."""

from __future__ import annotations

from farm.settings.kinds import RULES, Bool, BoolOrPath, Bytes, Optional, Text
from farm.settings.model import Field, Role, Stage, inert, moot, refused
from farm.settings.rows_build import BY_VALUE, NO_PYTORCH_PART, ONE_ENGINE, UNLISTED

MEMORY = "Memory and Resource Management"
PARTITIONING = "Graph Partitioning"
WORKFLOW = "Compilation Workflow"
CACHING = "Engine Caching"
DLA = "DLA Parameters"
NEWER = "Newer Fields"

MIB = 2**20

CUT_ALREADY = "Keyed by value for whole programs; a subgraph has already been cut by it."
LISTED_LATER = "Engine-invariant in Torch-TensorRT from {} on (its released list)."
RTX_NO_DLA = refused("TensorRT-RTX ignores DLA without saying so; build with tensorrt for DLA")
EXPORTED = moot("the program comes exported; nothing is traced here")
OWN_LOWERING = refused(
    "torch.onnx lowers the model by its own tables here; decompose it before exporting "
    "(run_decompositions), or "
    "build with torch_tensorrt"
)
NOT_ITS_LOWERING = inert("torch.onnx lowers the model by its own rules here")
SEES_ALL = moot("farm always looks first; --force builds anew")
STORES_ALL = moot("farm stores every engine that it builds")
OWN_TIMING = moot("farm keeps timing caches itself, by GPU and version: see 'farm timing'")
NO_DRYRUN = refused("farm builds engines, and a dry run builds none; 'farm key' and --no-build ask without building")
NOT_IN_PLAN = moot("an engine does not record it; who runs the engine decides")
NO_MODULE = moot("no PyTorch module is loaded while the engine is built")

_MEMORY = (
    Field(
        "enable_resource_partitioning", Bool(), False, MEMORY, Role.GRAPH,
        "Split subgraphs that are too big to build within cpu_memory_budget.",
        "Keyed by value for whole programs; needs an explicit cpu_memory_budget.",
        'Specification: "Split oversized TRT subgraphs so each piece fits within cpu_memory_budget '
        'during engine '
        'build".',
        tensorrt=NO_PYTORCH_PART, tensorrt_rtx=NO_PYTORCH_PART, since=(2, 10), stage=Stage.PROGRAM,
    ),
    Field(
        "cpu_memory_budget", Optional(Bytes(1)), None, MEMORY, Role.GRAPH,
        "Host memory that building one engine may take, for resource partitioning.",
        "Vanishes unless enable_resource_partitioning; none is then an error, because what happens to be "
        "free "
        "on one machine is no part of a key.",
        'Specification: "None uses available system memory (reported by psutil)". DESIGN: "what is free '
        'here" is '
        "no key.",
        tensorrt=ONE_ENGINE, tensorrt_rtx=ONE_ENGINE, since=(2, 10), stage=Stage.PROGRAM,
    ),
    Field(
        "offload_module_to_cpu", Bool(), False, MEMORY, Role.SEARCH,
        "Keep the model's weights in host memory during compilation.",
        "In the recipe only: it leaves more GPU memory to the build, so the search may succeed where it "
        "failed.",
        'Specification: "reduce GPU memory pressure during the build phase". Search by judgement.',
        tensorrt=NO_MODULE, tensorrt_rtx=NO_MODULE,
    ),
    Field(
        "dynamically_allocate_resources", Bool(), False, MEMORY, Role.FORM,
        "Allocate memory for intermediate tensors when the engine runs, not before.",
        "Keyed by value for whole programs, which record it; an engine by itself does not.",
        'Specification: "Let TRT dynamically allocate memory for intermediate tensors at runtime rather '
        'than '
        'pre-allocating". Form by judgement: the compiled program carries it.',
        tensorrt=NOT_IN_PLAN, tensorrt_rtx=NOT_IN_PLAN, since=(2, 11), stage=Stage.PROGRAM,
    ),
)  # fmt: skip

_PARTITIONING = (
    Field(
        "use_fast_partitioner", Bool(), True, PARTITIONING, Role.GRAPH,
        "Cut the graph by adjacency (quick), not for the fewest engines.",
        CUT_ALREADY,
        'Specification: "Set to False to use the globally-optimal global_partition which minimizes '
        'engine count".',
        tensorrt=ONE_ENGINE, tensorrt_rtx=ONE_ENGINE, stage=Stage.PROGRAM,
    ),
    Field(
        "assume_dynamic_shape_support", Bool(), False, PARTITIONING, Role.GRAPH,
        "Trust every converter with dynamic shapes, without its own check.",
        "Keyed by value: conversion chooses converters by it.",
        'Specification: "Skip per-converter dynamic shape checks; treat all converters as '
        'dynamic-capable".',
        tensorrt=moot("there are no converters with such a check here"),
        tensorrt_rtx=moot("there are no converters with such a check here"),
    ),
    Field(
        "enable_experimental_decompositions", Bool(), False, PARTITIONING, Role.GRAPH,
        "Decompose into all of core ATen, not the curated part.",
        "Keyed by value for whole programs; a subgraph has already been lowered with it.",
        'Specification: "May expose more ops to TRT conversion at the cost of potential numerical '
        'differences".',
        tensorrt=OWN_LOWERING, tensorrt_rtx=OWN_LOWERING, stage=Stage.PROGRAM,
    ),
    Field(
        "use_distributed_mode_trace", Bool(), False, PARTITIONING, Role.GRAPH,
        "Trace with aot_autograd, for models that hold distributed tensors.",
        "Keyed by value for whole programs; a subgraph has already been traced.",
        'Specification: "Use aot_autograd for tracing instead of the default path".',
        tensorrt=EXPORTED, tensorrt_rtx=EXPORTED, stage=Stage.PROGRAM,
    ),
)  # fmt: skip

_WORKFLOW = (
    Field(
        "dryrun", BoolOrPath(), False, WORKFLOW, Role.WORKFLOW,
        "Report how the graph would be cut, and build nothing; a path saves the report.",
        "In neither key nor recipe.",
        UNLISTED,
        tensorrt=NO_DRYRUN, tensorrt_rtx=NO_DRYRUN, torch_tensorrt=NO_DRYRUN, stage=Stage.PROGRAM,
    ),
    Field(
        "lazy_engine_init", Bool(), False, WORKFLOW, Role.SEARCH,
        "Load the engines only after all of them are built.",
        "In the recipe only: what memory is free while kernels are timed depends on it. Cross-compiling "
        "for "
        "Windows turns it off.",
        'Specification: "engines may be less well tuned to their deployment resource availablity". '
        'Search by '
        "judgement.",
        tensorrt=ONE_ENGINE, tensorrt_rtx=ONE_ENGINE,
    ),
    Field(
        "debug", Bool(), False, WORKFLOW, Role.WORKFLOW,
        "Keep the builder's log at its most detailed.",
        "In neither key nor recipe.",
        UNLISTED,
    ),
)  # fmt: skip

_CACHING = (
    Field(
        "cache_built_engines", Bool(), False, CACHING, Role.WORKFLOW,
        "Store engines after building them.",
        "In neither key nor recipe. Cross-compiling for Windows turns it off.",
        UNLISTED,
        tensorrt=STORES_ALL, tensorrt_rtx=STORES_ALL, stage=Stage.PROGRAM,
    ),
    Field(
        "reuse_cached_engines", Bool(), False, CACHING, Role.WORKFLOW,
        "Look for a stored engine before building one.",
        "In neither key nor recipe; farm's commands always look, farm's cache in Torch-TensorRT obeys it. "
        "Cross-compiling for Windows turns it off.",
        UNLISTED,
        tensorrt=SEES_ALL, tensorrt_rtx=SEES_ALL, stage=Stage.PROGRAM,
    ),
    Field(
        "timing_cache_path", Text(), "/tmp/torch_tensorrt_engine_cache/timing_cache.bin",
        CACHING, Role.WORKFLOW,
        "Where TensorRT's kernel timings are kept between sessions.",
        "In neither key nor recipe. A path of the asker's means nothing, and must write nothing, on a "
        "worker.",
        UNLISTED,
        tensorrt=OWN_TIMING, tensorrt_rtx=OWN_TIMING, torch_tensorrt=OWN_TIMING,
    ),
)  # fmt: skip

_DLA_RULE = "Vanishes unless engine_capability is DLA_STANDALONE or device is a DLA core; keyed then."
_DLA_SOURCE = 'Specification: "Set engine_capability=EngineCapability.DLA_STANDALONE to target DLA".'

_DLA = (
    Field(
        "dla_sram_size", Bytes(1), MIB, DLA, Role.FORM,
        "On-chip memory that a DLA uses within a layer.",
        _DLA_RULE, _DLA_SOURCE, tensorrt_rtx=RTX_NO_DLA,
    ),
    Field(
        "dla_local_dram_size", Bytes(1), 1024 * MIB, DLA, Role.FORM,
        "Host memory that a DLA shares tensors between layers in.",
        _DLA_RULE, _DLA_SOURCE, tensorrt_rtx=RTX_NO_DLA,
    ),
    Field(
        "dla_global_dram_size", Bytes(1), 512 * MIB, DLA, Role.FORM,
        "Host memory that a DLA keeps weights and metadata in.",
        _DLA_RULE, _DLA_SOURCE, tensorrt_rtx=RTX_NO_DLA,
    ),
)  # fmt: skip

NEWER_ROWS = (
    Field(
        "decompose_attention", Bool(), False, NEWER, Role.ENGINE,
        "Break attention into small operators instead of converting it whole.",
        BY_VALUE, LISTED_LATER.format("2.11"),
        tensorrt=NOT_ITS_LOWERING, tensorrt_rtx=NOT_ITS_LOWERING, since=(2, 11),
    ),
    Field(
        "attn_bias_is_causal", Bool(), True, NEWER, Role.ENGINE,
        "Take the bias of efficient attention for a causal mask, which is faster; false reads it as it is.",
        BY_VALUE, LISTED_LATER.format("2.11"),
        tensorrt=inert("the bias is always read as it is here"),
        tensorrt_rtx=inert("the bias is always read as it is here"),
        since=(2, 11),
    ),
    Field(
        "use_complex_decomposition", Bool(), False, NEWER, Role.GRAPH,
        "Lower complex numbers with PyTorch's own decomposition.",
        "Keyed by value for whole programs; a subgraph has already been lowered with it.",
        "On no engine-invariant list: it changes the lowered graph. Graph by judgement. (Torch-TensorRT 2.14 itself "
        "turns it on where torch can do it; farm states it either way.)",
        tensorrt=OWN_LOWERING, tensorrt_rtx=OWN_LOWERING, since=(2, 14), stage=Stage.PROGRAM,
    ),
    Field(
        "disabled_constant_fold_exclusions", RULES, frozenset(), NEWER, Role.ENGINE,
        "Rules that keep nodes from being folded into constants, by name, to switch off.",
        "An unordered set of names, keyed as given.", LISTED_LATER.format("2.14"),
        tensorrt=NOT_ITS_LOWERING, tensorrt_rtx=NOT_ITS_LOWERING, since=(2, 14),
    ),
    Field(
        "fallback_data_dependent_ops", Bool(), False, NEWER, Role.GRAPH,
        "Leave operators whose output shape depends on data to PyTorch.",
        "Keyed by value for whole programs. A contradiction with require_full_compilation.",
        "On no engine-invariant list: it changes how the graph is cut. Torch-TensorRT raises for both "
        "together.",
        tensorrt=NO_PYTORCH_PART, tensorrt_rtx=NO_PYTORCH_PART, since=(2, 13), stage=Stage.PROGRAM,
    ),
)  # fmt: skip

FLOW_ROWS = (*_MEMORY, *_PARTITIONING, *_WORKFLOW, *_CACHING, *_DLA)
