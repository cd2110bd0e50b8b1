"""Writing a model to a file without a second copy of its weights.

protobuf can only serialise a whole message in memory. Here the frame comes from protobuf and the weights are
written after it straight from their arrays, with lengths computed beforehand: the bytes are those of an ordinary
file, since fields of a message may stand in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from secateur.ir.graph import Array

# Field numbers in onnx.proto, each as the tag of a length-delimited field.
GRAPH, INITIALIZER, RAW_DATA = (7 << 3) | 2, (5 << 3) | 2, (9 << 3) | 2


def tensor_head(name: str, array: Array) -> TensorProto:
    """Name, type and shape of a weight, without its data."""
    head = TensorProto(name=name, dims=array.shape)
    head.data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return head


def is_plain(array: Array) -> bool:
    """Whether the bytes of an array in memory are those of the tensor in a file.

    Not so for text, for foreign byte orders, and for types below a byte, which ONNX packs.
    """
    packed = array.dtype.name.startswith(("int4", "uint4", "int2", "uint2", "float4"))
    return array.dtype != object and array.dtype.byteorder != ">" and not packed


def full_tensor(name: str, array: Array) -> TensorProto:
    """A weight with its data."""
    if not is_plain(array):
        return onnx.numpy_helper.from_array(np.asarray(array), name)
    tensor = tensor_head(name, array)
    tensor.raw_data = array.tobytes()
    return tensor


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def write_model(file: BinaryIO, model: ModelProto, arrays: Mapping[str, Array]) -> None:
    """Write the model with these weights added to its initialisers. ``model`` itself is emptied of its graph."""
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    parts: list[tuple[bytes, Array | None]] = []
    total = len(graph)
    for name, array in arrays.items():
        plain = is_plain(array)
        if plain:
            body = tensor_head(name, array).SerializeToString() + bytes([RAW_DATA]) + _varint(array.nbytes)
            size = len(body) + array.nbytes
        else:
            body = full_tensor(name, array).SerializeToString()
            size = len(body)
        head = bytes([INITIALIZER]) + _varint(size)
        parts.append((head + body, array if plain else None))
        total += len(head) + size
    file.write(model.SerializeToString())
    file.write(bytes([GRAPH]) + _varint(total))
    file.write(graph)
    for start, data in parts:
        file.write(start)
        if data is not None and data.nbytes:
            file.write(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
