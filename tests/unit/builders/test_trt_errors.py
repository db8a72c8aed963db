"""What TensorRT's messages mean. The texts are TensorRT-RTX 1.7.1.116's own."""

from __future__ import annotations

import pytest

from farm.builders.trt_errors import classify_errors, classify_parse, gib, tidy
from farm.builds import FailureKind

CUDA_35 = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for CUDA "
    "runtime version))"
)
NO_CONTEXT = "Thread context has not been set! Using global log stream."
TURING = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: check_turing_op_compatibility] Cannot "
    "compile operation 'node_linear' for Turing (SM75): FP32 GEMM is not supported. In compileGraph at "
    "/_src/optimizer/myelin/codeGenerator.cpp:2012)"
)
REFIT = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([myelin_graph.h:1295: attachExceptionMsgToGraph] "
    "MyelinCheckException: graph_jit.cpp:278: CHECK(status == CUDA_SUCCESS) failed.  In compileGraph at "
    "/_src/optimizer/myelin/codeGenerator.cpp:2012)"
)
WORKSPACE = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([tactic.cpp:1676: enumerate_tactics] Tactic Selection: "
    "no tactics to implement the operation within workspace limit. Consider increase the allowed workspace size if "
    "applicable.; [tactic.cpp:264: run] Error during tactic selection. In compileGraph at "
    "/_src/optimizer/myelin/codeGenerator.cpp:2012)"
)
SAFETY = (
    "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node "
    "{ForeignNode[l.bias...node_linear_0]}. In computeCosts at /_src/optimizer/common/tactic/optimizer.cpp:4254)"
)
LEAN = "Unable to load library: libnvinfer_lean.so.1: cannot open shared object file"
NODES = {"node_linear": "aten.linear.default at model.py:12 (forward)"}


def test_fp32_products_for_turing_are_permanent_and_name_the_line_of_the_model() -> None:
    failure = classify_errors([TURING, CUDA_35], NODES)
    assert failure is not None
    assert failure.kind is FailureKind.PERMANENT
    assert failure.message == (
        "TensorRT: Cannot compile operation 'node_linear' for Turing (SM75): FP32 GEMM is not supported "
        "[aten.linear.default at model.py:12 (forward)]"
    )
    assert "float16" in failure.hint


@pytest.mark.parametrize(
    ("text", "kind", "hint"),
    [
        (REFIT, FailureKind.NODE, "driver"),
        (WORKSPACE, FailureKind.PERMANENT, "workspace_size"),
        (SAFETY, FailureKind.PERMANENT, "engine_capability"),
        (LEAN, FailureKind.NODE, "library"),
        ("OutOfMemory (Requested size was 9437184 bytes.)", FailureKind.PERMANENT, "workspace_size"),
        ("[virtualMemoryBuffer] CUDA out of memory", FailureKind.NODE, "GPU memory"),
        ("std::bad_alloc", FailureKind.NODE, "memory"),
        ("something never seen", FailureKind.PERMANENT, "farm logs"),
    ],
)
def test_kinds_and_hints(text: str, kind: FailureKind, hint: str) -> None:
    failure = classify_errors([text], {})
    assert failure is not None
    assert (failure.kind, hint in failure.hint) == (kind, True)


def test_the_first_error_counts_and_spurious_ones_never_do() -> None:
    failure = classify_errors([NO_CONTEXT, CUDA_35, WORKSPACE, CUDA_35, REFIT], {})
    assert failure is not None and "workspace" in failure.message
    assert classify_errors([NO_CONTEXT, CUDA_35], {}) is None
    assert classify_errors([], {}) is None


def test_a_fused_node_is_traced_to_one_of_its_parts() -> None:
    failure = classify_errors([SAFETY], NODES)
    assert failure is not None and failure.message.endswith("[aten.linear.default at model.py:12 (forward)]")


def test_an_operator_that_tensorrt_lacks_is_named_with_its_line() -> None:
    told = [
        {
            "text": 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
            "node_name": "node_DFT_8",
            "node_operator": "DFT",
        }
    ]
    failure = classify_parse(told, [], {"node_DFT_8": "aten.fft_rfft.default at model.py:6 (forward)"})
    assert failure.kind is FailureKind.PERMANENT
    assert failure.message == "TensorRT has no operator DFT [aten.fft_rfft.default at model.py:6 (forward)]"


def test_a_parse_error_keeps_tensorrts_reason_without_its_source_positions() -> None:
    told = [
        {
            "text": "Invalid Node - node_mm\nITensor::getDimensions: Error Code 4: API Usage Error (node_mm: last "
            "dimension of input0 = 4 and second to last dimension of input1 = 5 but must match. In validate at "
            f"/_src/optimizer/api/layers/matrixMultiplyLayer.cpp:192)\n{CUDA_35}",
            "node_name": "node_mm",
            "node_operator": "MatMul",
        }
    ]
    failure = classify_parse(told, [], {})
    assert failure.message == (
        "TensorRT cannot read MatMul [node node_mm]: node_mm: last dimension of input0 = 4 and second to last "
        "dimension of input1 = 5 but must match"
    )


def test_an_assertion_is_told_by_its_words_alone() -> None:
    assert tidy(
        "Assertion failed: !trainingMode[0]: TensorRT does not support the Dropout operator in training mode"
    ) == ("TensorRT does not support the Dropout operator in training mode")


def test_a_damaged_file_and_a_lack_of_memory_are_told_apart() -> None:
    damaged = classify_parse([{"text": "Assertion failed: x: Failed to parse the ONNX model."}], [], {})
    starved = classify_parse([{"text": "std::bad_alloc"}], [], {})
    assert (damaged.kind, starved.kind) == (FailureKind.PERMANENT, FailureKind.NODE)
    assert "damaged" in damaged.message


@pytest.mark.parametrize("told", [[], [None], ["text"], [{}], [{"text": None}]])
def test_whatever_a_child_tells_is_survived(told: list[object]) -> None:
    assert classify_parse(told, [], {}).kind is FailureKind.PERMANENT


def test_a_long_message_is_cut() -> None:
    assert len(tidy("x" * 5000)) <= 300


def test_bytes_for_people() -> None:
    assert [gib(size) for size in (200 * 2**20, 3 * 2**29)] == ["200 MiB", "1.5 GiB"]
