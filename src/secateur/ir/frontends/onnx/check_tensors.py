"""Tensors of an ONNX file against the bytes that are there: types, dimensions, packed, sparse and external data."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import SparseTensorProto, TensorProto

FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
PACKED = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}  # bits of what is narrower than a byte
UNREAD = frozenset({"UNDEFINED", "FLOAT6E2M3", "FLOAT6E3M2"})
KNOWN = frozenset(v for k, v in TensorProto.DataType.items() if k not in UNREAD)
LARGEST = 1 << 27  # elements of a sparse weight once its zeros are there
AXES = 32
ADDRESSABLE = 1 << 60  # bytes; the product of the sizes stays below even where one of them is 0


class Damage(Exception):
    """What is wrong with the file, and where: the start of a sentence."""


def bits(kind: int) -> int:
    """Bits of an element of this type in ``raw_data``; 0 for text, which is never there."""
    name = TensorProto.DataType.Name(kind)
    if name == "STRING":
        return 0
    return PACKED.get(name) or np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize * 8


def check_tensor(tensor: TensorProto, what: str) -> None:
    """Refuse a tensor whose data is not what its type and dimensions say. Raises Damage."""
    count = _count(tensor, what)
    if tensor.data_location == TensorProto.EXTERNAL:
        raise Damage(f"{what} has its data in another file, which was not read with it")
    if tensor.HasField("segment"):
        raise Damage(f"{what} holds a segment of its data only")
    filled = [f for f in FIELDS if getattr(tensor, f)]
    if tensor.HasField("raw_data"):
        if filled:
            raise Damage(f"{what} holds its data twice, in raw_data and in {filled[0]}")
        _raw(tensor, count, what)
        return
    expected = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    others = [f for f in filled if f != expected]
    if others:
        raise Damage(f"{what} is {_name(tensor)} and holds data in {others[0]} instead of {expected}")
    values = getattr(tensor, expected)
    need = _entries(tensor.data_type, count)
    if len(values) != need:
        raise Damage(
            f"{what} is {_name(tensor)}{list(tensor.dims)} and needs {need} numbers, but there are {len(values)}"
        )
    if expected == "int32_data" and count:
        low, high = _range(tensor.data_type)
        if not low <= min(values) <= max(values) <= high:
            raise Damage(f"{what} holds numbers that {_name(tensor)} cannot")


def _count(tensor: TensorProto, what: str) -> int:
    """How many elements the dimensions say."""
    if tensor.data_type not in KNOWN:
        raise Damage(f"{what} has no known element type ({tensor.data_type})")
    if len(tensor.dims) > AXES or any(d < 0 for d in tensor.dims):
        raise Damage(f"{what} has the dimensions {list(tensor.dims)[:AXES]}")
    if math.prod(max(d, 1) for d in tensor.dims) * 16 > ADDRESSABLE:
        raise Damage(f"{what} has dimensions beyond any memory, {list(tensor.dims)}")
    return math.prod(tensor.dims)


def _raw(tensor: TensorProto, count: int, what: str) -> None:
    each = bits(tensor.data_type)
    if not each:
        raise Damage(f"{what} is text and holds it in raw_data")
    need, data = (count * each + 7) // 8, tensor.raw_data
    if len(data) != need:
        raise Damage(f"{what} is {_title(tensor)} and needs {need} bytes, but there are {len(data)}")
    if tensor.data_type == TensorProto.BOOL and data and max(data) > 1:
        raise Damage(f"{what} holds numbers that BOOL cannot")


def _entries(kind: int, count: int) -> int:
    """How many entries of the typed field hold that many elements."""
    name = TensorProto.DataType.Name(kind)
    if name.startswith("COMPLEX"):
        return 2 * count
    return (count * PACKED[name] + 7) // 8 if name in PACKED else count


def _range(kind: int) -> tuple[int, int]:
    """The numbers that int32_data may hold for this type: its own, or bit patterns."""
    name = TensorProto.DataType.Name(kind)
    if name == "BOOL":
        return 0, 1
    if name in ("INT32", "INT16", "INT8"):
        half = 1 << (bits(kind) - 1)
        return -half, half - 1
    if name in PACKED:
        return -128, 255  # a byte of several, signed or not
    return 0, (1 << bits(kind)) - 1


def _name(tensor: TensorProto) -> str:
    return str(TensorProto.DataType.Name(tensor.data_type))


def _title(tensor: TensorProto) -> str:
    return f"{_name(tensor)}{list(tensor.dims)}"


def check_sparse(weight: SparseTensorProto, what: str) -> None:
    """Refuse a sparse tensor whose parts do not fit, or whose places lie outside or are not in order. Raises Damage."""
    values, indices = weight.values, weight.indices
    check_tensor(values, f"the values of {what}")
    check_tensor(indices, f"the indices of {what}")
    dims = list(weight.dims)
    if len(values.dims) != 1 or not dims or any(d < 1 for d in dims) or len(dims) > AXES:
        raise Damage(f"{what} has values of dimensions {list(values.dims)} for a tensor of {dims}")
    if math.prod(dims) > LARGEST:
        raise Damage(f"{what} has dimensions {dims}, more than the {LARGEST} elements that are read of a sparse one")
    count = values.dims[0]
    if indices.data_type != TensorProto.INT64 or list(indices.dims) not in ([count], [count, len(dims)]):
        raise Damage(f"{what} has indices of dimensions {list(indices.dims)} for {count} values")
    places = onnx.numpy_helper.to_array(indices)
    limits = np.array(dims if places.ndim == 2 else [math.prod(dims)], np.int64)
    table = places.reshape(count, -1)
    if ((table < 0) | (table >= limits)).any():
        raise Damage(f"{what} has indices outside of {dims}")
    flat = np.ravel_multi_index(tuple(table.T), dims) if places.ndim == 2 else places
    if (np.diff(flat) <= 0).any():
        raise Damage(f"{what} has indices that do not rise")


def check_external(tensor: TensorProto, folder: Path, what: str) -> None:
    """Refuse external data that lies outside of the folder or of its file; a length that is left out is filled in.

    Raises Damage.
    """
    need = (_count(tensor, what) * bits(tensor.data_type) + 7) // 8
    if tensor.data_type == TensorProto.STRING:
        raise Damage(f"{what} is text and has it in another file")
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if not location or Path(location).is_absolute() or ".." in Path(location).parts or "\0" in location:
        raise Damage(f"{what} has its data in '{location}', which is not a place next to the file")
    file = folder / location
    if not file.is_file():
        raise Damage(f"the data of {what} is missing, it should be in {file}: put that file next to the model")
    numbers = {}
    for key in ("offset", "length"):
        text = entries.get(key, "0" if key == "offset" else str(need))
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise Damage(f"{what} has the {key} '{text}' in '{location}'")
        numbers[key] = int(text)
    size = os.path.getsize(file)
    if numbers["length"] != need:
        raise Damage(
            f"{what} is {_name(tensor)}{list(tensor.dims)}, {need} bytes, and names {numbers['length']} of '{location}'"
        )
    if numbers["offset"] + need > size:
        raise Damage(f"{what} ends at byte {numbers['offset'] + need} of '{location}', which has {size}: copy it again")
    if "length" not in entries:
        tensor.external_data.add(key="length", value=str(need))
