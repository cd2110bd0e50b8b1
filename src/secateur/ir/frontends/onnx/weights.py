"""Reading an ONNX file without a second copy of its weights.

protobuf can only parse a whole message in memory, and hands out every weight as a copy. Here the file is walked field
by field: the data of large weights goes from the file straight into their arrays, and protobuf parses the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, SparseTensorProto, TensorProto

from secateur.ir.graph import Array

# Field numbers in onnx.proto, each with the wire type of a length-delimited field.
GRAPH, INITIALIZER, RAW_DATA = (7, 2), (5, 2), (9, 2)
LARGE = 1 << 12  # bytes from which a weight is read on its own
CHUNK = 1 << 16

Kind = tuple[int, int]


@dataclass
class Skeleton:
    """The bytes of a model without those of its large weights.

    ``graphs`` holds the fields of each graph, ``rest`` the model's other fields; ``places`` says for an initialiser,
    by its number, where its data start in the file and how long they are.
    """

    graphs: list[list[bytes]] = field(default_factory=list)
    rest: list[bytes] = field(default_factory=list)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    initialisers: int = 0


class Unwalkable(Exception):
    """The file is not laid out as expected; protobuf has to say what is wrong with it."""


def read_apart(path: Path) -> tuple[ModelProto, dict[str, Array]] | None:
    """The model without the data of its large weights, and those by name; None where protobuf must read the file.

    The arrays are read-only. Raises OSError.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            skeleton = _walk(file, size)
            graphs = b"".join(_enclosed(b"\x3a", b"".join(parts)) for parts in skeleton.graphs)
            model = ModelProto.FromString(b"".join(skeleton.rest) + graphs)
            if len(model.graph.initializer) != skeleton.initialisers or model.functions:
                return None  # a function's body may want the weights that it is given
            arrays = {}
            for number, place in skeleton.places.items():
                tensor = model.graph.initializer[number]
                arrays[tensor.name] = _read(file, tensor, *place)
            return (model, arrays) if len(arrays) == len(skeleton.places) else None
    except (Unwalkable, DecodeError, KeyError, ValueError):
        return None


def dense(sparse: SparseTensorProto) -> Array:
    """A sparse weight with its zeros. Raises ValueError where its places lie outside of its shape."""
    values = onnx.numpy_helper.to_array(sparse.values)
    places = onnx.numpy_helper.to_array(sparse.indices).astype(np.int64)
    shape = tuple(sparse.dims)
    if places.ndim == 2:  # a row of coordinates for each value, else the place in the flat array
        places = np.ravel_multi_index(tuple(places.T), shape)
    if places.shape != values.shape or (places.size and not 0 <= places.min() <= places.max() < math.prod(shape)):
        raise ValueError(f"{values.size} values at {places.size} places in {shape}")
    full = np.zeros(math.prod(shape), values.dtype)
    full[places] = values
    return full.reshape(shape)


def restored(model: ModelProto, arrays: Mapping[str, Array]) -> ModelProto:
    """A copy of the model with the data of all its weights."""
    whole = ModelProto()
    whole.CopyFrom(model)
    for tensor in whole.graph.initializer:
        if tensor.name in arrays:
            tensor.raw_data = arrays[tensor.name].tobytes()
    return whole


def _walk(file: BinaryIO, size: int) -> Skeleton:
    skeleton = Skeleton()
    for kind, start, content, end in _fields(file, 0, size):
        if kind != GRAPH:
            skeleton.rest.append(_bytes(file, start, end))
            continue
        parts: list[bytes] = []
        skeleton.graphs.append(parts)
        for inner, inner_start, inner_content, inner_end in _fields(file, content, end):
            if inner == INITIALIZER:
                head = _tensor(file, inner_content, inner_end, skeleton)
                parts.append(_enclosed(b"\x2a", head))
                skeleton.initialisers += 1
            else:
                parts.append(_bytes(file, inner_start, inner_end))
    return skeleton


def _tensor(file: BinaryIO, start: int, end: int, skeleton: Skeleton) -> bytes:
    """The bytes of a tensor without its raw data, whose place is noted."""
    if end - start < LARGE:
        return _bytes(file, start, end)
    parts = []
    for kind, field_start, content, field_end in _fields(file, start, end):
        if kind == RAW_DATA and field_end - content >= LARGE // 2:
            skeleton.places[skeleton.initialisers] = (content, field_end - content)
        else:
            parts.append(_bytes(file, field_start, field_end))
    return b"".join(parts)


def _read(file: BinaryIO, tensor: TensorProto, offset: int, length: int) -> Array:
    """The array of a weight. Raises Unwalkable where its size is not that of its data."""
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    count = math.prod(tensor.dims)
    # Types below a byte are packed, and their arrays are not as long as their data.
    if count * dtype.itemsize != length or dtype.name.startswith(("int4", "uint4", "int2", "uint2", "float4")):
        raise Unwalkable
    array = np.empty(tuple(tensor.dims), dtype)
    file.seek(offset)
    target = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < length:
        got = file.readinto(target[done:])  # type: ignore[attr-defined]
        if not got:
            raise Unwalkable
        done += got
    array.flags.writeable = False
    return array


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[Kind, int, int, int]]:
    """Each field between two places: its number and wire type, where it starts, its content and where it ends."""
    at = start
    while at < end:
        head = _bytes(file, at, min(end, at + 20))
        tag, used = _varint(head, 0)
        number, wire = tag >> 3, tag & 7
        content = at + used
        if wire == 2:
            length, more = _varint(head, used)
            content = at + more
            stop = content + length
        elif wire == 0:
            stop = at + _varint(head, used)[1]
        elif wire in (1, 5):
            stop = content + (8 if wire == 1 else 4)
        else:
            raise Unwalkable
        if stop > end or number == 0:
            raise Unwalkable
        yield (number, wire), at, content, stop
        at = stop


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and the place after it."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise Unwalkable


def _enclosed(tag: bytes, content: bytes) -> bytes:
    size, length = bytearray(), len(content)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return tag + bytes([*size, length]) + content


def _bytes(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    data = file.read(end - start)
    if len(data) != end - start:
        raise Unwalkable
    return data
