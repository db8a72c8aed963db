"""The fields of ONNX's messages that farm reads: number → (name, kind). Checked against onnx in the tests."""

from __future__ import annotations

from collections.abc import Mapping

from farm.programs.onnx_wire import Field

MESSAGES: Mapping[str, Mapping[int, Field]] = {
    "ModelProto": {
        1: ("ir_version", "int"),
        7: ("graph", "GraphProto"),
        8: ("opset_import", "OperatorSetIdProto*"),
        14: ("metadata_props", "StringStringEntryProto*"),
        25: ("functions", "FunctionProto*"),
    },
    "OperatorSetIdProto": {1: ("domain", "text"), 2: ("version", "int")},
    "StringStringEntryProto": {1: ("key", "text"), 2: ("value", "text")},
    "GraphProto": {
        1: ("node", "NodeProto*"),
        5: ("initializer", "TensorProto*"),
        11: ("input", "ValueInfoProto*"),
        12: ("output", "ValueInfoProto*"),
        15: ("sparse_initializer", "place*"),
        16: ("metadata_props", "StringStringEntryProto*"),
    },
    "NodeProto": {
        1: ("input", "text*"),
        2: ("output", "text*"),
        3: ("name", "text"),
        4: ("op_type", "text"),
        5: ("attribute", "AttributeProto*"),
        7: ("domain", "text"),
        8: ("overload", "text"),
    },
    "AttributeProto": {
        1: ("name", "text"),
        2: ("f", "float"),
        3: ("i", "int"),
        4: ("s", "bytes"),
        5: ("t", "TensorProto"),
        6: ("g", "GraphProto"),
        7: ("floats", "float*"),
        8: ("ints", "int*"),
        9: ("strings", "bytes*"),
        10: ("tensors", "TensorProto*"),
        11: ("graphs", "GraphProto*"),
        14: ("tp", "bytes"),
        15: ("type_protos", "bytes*"),
        20: ("type", "int"),
        21: ("ref_attr_name", "text"),
        22: ("sparse_tensor", "place"),
        23: ("sparse_tensors", "place*"),
    },
    "TensorProto": {
        1: ("dims", "int*"),
        2: ("data_type", "int"),
        3: ("segment", "place"),
        4: ("float_data", "place*"),
        5: ("int32_data", "place*"),
        6: ("string_data", "bytes*"),
        7: ("int64_data", "place*"),
        8: ("name", "text"),
        9: ("raw_data", "place"),
        10: ("double_data", "place*"),
        11: ("uint64_data", "place*"),
        13: ("external_data", "StringStringEntryProto*"),
        14: ("data_location", "int"),
    },
    "ValueInfoProto": {1: ("name", "text"), 2: ("type", "TypeProto")},
    "TypeProto": {1: ("tensor_type", "Tensor"), 4: ("sequence_type", "place"), 9: ("optional_type", "place")},
    "Tensor": {1: ("elem_type", "int"), 2: ("shape", "TensorShapeProto")},
    "TensorShapeProto": {1: ("dim", "Dimension*")},
    "Dimension": {1: ("dim_value", "int"), 2: ("dim_param", "text")},
    "FunctionProto": {
        1: ("name", "text"),
        4: ("input", "text*"),
        5: ("output", "text*"),
        6: ("attribute", "text*"),
        7: ("node", "NodeProto*"),
        9: ("opset_import", "OperatorSetIdProto*"),
        10: ("domain", "text"),
        11: ("attribute_proto", "AttributeProto*"),
        13: ("overload", "text"),
    },
}
"""``Tensor`` and ``Dimension`` are the nested ``TypeProto.Tensor`` and ``TensorShapeProto.Dimension``."""

EXPLAINED: Mapping[str, Mapping[int, Field]] = {
    **MESSAGES,
    "NodeProto": {**MESSAGES["NodeProto"], 9: ("metadata_props", "StringStringEntryProto*")},
}
"""The same with the nodes' metadata, where exporters put the lines of the model's source."""

DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
}
PACKED = {"uint4": 2, "int4": 2, "float4_e2m1": 2, "uint2": 4, "int2": 4}
"""Elements to a byte."""
