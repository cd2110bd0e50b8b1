"""NumPy arrays and element types of torch tensors, and back, without copies."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch

from secateur.ir.errors import Unsupported
from secateur.ir.graph import Array, dtype_of, numpy_dtype

TORCH_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16,
        "i64": torch.int64, "i32": torch.int32, "i16": torch.int16, "i8": torch.int8,
        "u8": torch.uint8, "u16": torch.uint16, "u32": torch.uint32, "u64": torch.uint64,
        "b1": torch.bool, "c64": torch.complex64, "c128": torch.complex128,
    }
)  # fmt: skip
SHORT_NAMES: Mapping[torch.dtype, str] = MappingProxyType({dtype: short for short, dtype in TORCH_DTYPES.items()})
FLOATS = frozenset({"f32", "f64", "f16", "bf16"})
COMPLEX = frozenset({"c64", "c128"})


def short_name(dtype: torch.dtype) -> str:
    """The IR's name of a torch element type. Raises Unsupported for those it has none for."""
    try:
        return SHORT_NAMES[dtype]
    except KeyError:
        raise Unsupported(
            f"tensor type {dtype} is not supported: the IR knows {', '.join(TORCH_DTYPES)}. "
            "Convert the module, for example with module.float()."
        ) from None


def to_numpy(tensor: torch.Tensor) -> Array:
    """A view of the tensor's memory as an array; bfloat16 through ml_dtypes."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    short = short_name(tensor.dtype)
    if short == "bf16":
        return tensor.view(torch.int16).numpy().view(numpy_dtype("bf16"))
    view: Array = tensor.numpy()
    return view


def to_torch(array: Array, copy: bool = False) -> torch.Tensor:
    """A tensor over the array's memory, or over a copy of it."""
    array = np.asarray(array)
    short = dtype_of(array)
    if short not in TORCH_DTYPES:
        raise Unsupported(f"arrays of type {array.dtype} cannot become torch tensors; convert them to numbers first.")
    # torch has no negative strides, and no strides that are no multiple of the item.
    if copy or any(s < 0 or s % array.itemsize for s in array.strides):
        array = np.array(array, order="C", copy=True)
    if short == "bf16":
        array = array.view(np.int16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # read-only memory: nothing here writes to aliased weights
        tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if short == "bf16" else tensor
