"""Calibration data as users have them, checked and made into batches that a network takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from secateur.ir import Array, Error, Graph, InputError, Sym, Value
from secateur.ir.graph import numpy_dtype

if TYPE_CHECKING:
    from torch import Tensor

CASTS = {"f": "fiub", "i": "iub", "u": "iub", "b": "b", "c": "cfiub"}  # kinds of numbers that become this one
NUMBERS = {
    "f": "floating numbers", "i": "whole numbers", "u": "whole numbers", "b": "true and false", "c": "complex numbers",
    "O": "objects", "U": "text", "S": "bytes", "V": "records", "M": "dates", "m": "times",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Item:
    """What one item of the data holds: ``examples`` rows of every input by name, as they were given, and labels.

    Names, ranks, shapes, kinds of numbers, lengths and labels fit the network; values are looked at row by row later.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    examples: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs by name, of the size that the network takes; the first ``examples`` of them count. Labels if there are."""

    inputs: Mapping[str, Array]
    labels: Array | None
    examples: int


def batches(graph: Graph, data: Iterable[object], most: int = 16, source: str = "calibration") -> Iterator[Batch]:
    """Cut what the user gave into batches of at most ``most`` examples, or of the size that the network is fixed to.

    An item of ``data`` is ``x``, ``(x, y)`` or a mapping by input name (with labels: ``(mapping, y)``), NumPy or torch,
    the batch along axis 0. Raises InputError that names the batch: see ``checked``, and NaN, infinity or numbers that
    the network's type cannot hold.
    """
    for number, given in enumerate(data):
        where = f"{source}, batch {number}"
        yield from parts(graph, checked(graph, given, where), where, most)


def parts(graph: Graph, item: Item, where: str, most: int = 16) -> Iterator[Batch]:
    """One item, which stands ``where``, in batches. Raises InputError for values that the network cannot take."""
    fixed = [v.shape[0] for v in graph.inputs if v.shape and not isinstance(v.shape[0], Sym)]
    size = int(fixed[0]) if fixed else most
    for start in range(0, item.examples, size):
        examples = min(size, item.examples - start)
        short = size - examples if fixed else 0  # a network of fixed batch: repeat the last, which does not count
        inputs = {v.name: _rows(v, item.inputs[v.name], start, examples, short, where) for v in graph.inputs}
        yield Batch(inputs, None if item.labels is None else item.labels[start : start + examples], examples)


def checked(graph: Graph, given: object, where: str) -> Item:
    """One item of the data. Raises InputError that names the batch, where it does not fit the network.

    Wrong names, ranks, shapes, kinds of numbers or lengths, and labels where there is nothing that they could label.
    """
    inputs, labels = _named(graph, given, where)
    sizes = {}
    for value in graph.inputs:
        x = inputs[value.name]
        fits = x.ndim == len(value.shape) and all(
            isinstance(want, Sym) or have == want for have, want in zip(x.shape[1:], value.shape[1:], strict=False)
        )
        if not fits or 0 in x.shape[1:]:
            raise InputError(
                f"{where}: input '{value.name}' has shape {list(x.shape)}, '{graph.name}' takes "
                f"{list(map(repr, value.shape))}, any number of examples; resize or crop the data"
            )
        kind, want = _kind(x.dtype), _kind(numpy_dtype(value.dtype))
        if kind not in CASTS.get(want, want):
            raise InputError(
                f"{where}: input '{value.name}' holds {NUMBERS.get(kind, kind)} ({x.dtype}), '{graph.name}' takes "
                f"{NUMBERS.get(want, want)} ({value.dtype}); convert the data"
            )
        if x.ndim:
            sizes[value.name] = x.shape[0]
    if len(set(sizes.values())) != 1:
        raise InputError(f"{where}: inputs of {sorted(set(sizes.values()))} examples; all must have the same number")
    total = next(iter(sizes.values()))
    return Item(inputs, None if labels is None else _labels(graph, labels, total, where), total)


def classes_of(graph: Graph) -> int | None:
    """How many classes the first output scores, one row for each example; None where it is something else."""
    value = graph.value(graph.outputs[0])
    scores = len(value.shape) == 2 and int(value.shape[1]) > 1 and value.dtype in ("f32", "f64", "f16", "bf16")
    return int(value.shape[1]) if scores else None


def _named(graph: Graph, given: object, where: str) -> tuple[dict[str, Array], Array | None]:
    names = [v.name for v in graph.inputs]
    labels = None
    if isinstance(given, tuple | list):
        if len(given) != 2:
            raise InputError(
                f"{where}: a {type(given).__name__} of {len(given)}; give x, (x, y) or a dict by input name"
            )
        x, y = given
        given, labels = x, as_array(y, f"{where}, labels")
    if isinstance(given, Mapping):
        unknown, missing = (sorted(map(str, a - b)) for a, b in ((set(given), set(names)), (set(names), set(given))))
        if unknown or missing:
            wrong = f"unknown: {unknown}" if unknown else f"missing: {missing}"
            raise InputError(f"{where}: '{graph.name}' takes the inputs {names}; {wrong}")
        return {name: as_array(given[name], f"{where}, input '{name}'") for name in names}, labels
    if len(names) != 1:
        raise InputError(f"{where}: '{graph.name}' takes {len(names)} inputs; give dicts by name: {names}")
    return {names[0]: as_array(given, where)}, labels


def as_array(x: object, where: str) -> Array:
    """NumPy's view of an array or a tensor. Raises InputError for what is not an array of numbers."""
    try:
        if hasattr(x, "detach"):
            from secateur.ir.frontends.torch.arrays import to_numpy

            return to_numpy(cast("Tensor", x))
        return np.asarray(x)
    except (Error, TypeError, ValueError, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        raise InputError(f"{where}: a {type(x).__name__} that is not an array of numbers: {said}") from error


def _labels(graph: Graph, labels: Array, total: int, where: str) -> Array:
    """i64[examples]. Raises InputError where they do not fit."""
    classes = classes_of(graph)
    if classes is None:
        raise InputError(
            f"{where}: there are labels, but the first output of '{graph.name}' is {graph.value(graph.outputs[0])}, "
            "not scores by class; give inputs alone"
        )
    if labels.size != total or labels.ndim > 2:
        raise InputError(
            f"{where}: {total} inputs and labels of shape {list(labels.shape)}; give one label for each example, the "
            "number of its class"
        )
    if labels.dtype.kind not in "iu" or (total and not 0 <= int(labels.min()) <= int(labels.max()) < classes):
        shown = f" from {labels.min()} to {labels.max()}" if total and labels.dtype.kind in "iufb" else ""
        raise InputError(
            f"{where}: calibration labels are {labels.dtype}{shown}; the network knows the classes 0 to {classes - 1}, "
            "as whole numbers"
        )
    flat: Array = labels.reshape(-1).astype(np.int64)
    return flat


def _rows(value: Value, x: Array, start: int, count: int, short: int, where: str) -> Array:
    """``count`` rows in the network's type, and ``short`` more like the last. Raises InputError for unusable values."""
    where = f"{where}: input '{value.name}'"
    want = numpy_dtype(value.dtype)
    part = x[start : start + count] if x.ndim else x
    if part.dtype.kind in "iu" and want.kind in "iu" and part.size:
        least, most = int(part.min()), int(part.max())
        if least < np.iinfo(want).min or most > np.iinfo(want).max:
            raise InputError(f"{where} holds numbers from {least} to {most}, which {value.dtype} cannot hold")
    with np.errstate(over="ignore", invalid="ignore"):
        part = np.ascontiguousarray(part, want).reshape(part.shape)
    if _kind(want) in "fc":
        finite = np.isfinite(part)
        if not finite.all():
            row = start + int(np.argmin(finite.reshape(len(part), -1).all(1))) if x.ndim else 0
            raise InputError(f"{where} holds NaN or infinity in example {row}; leave such examples out")
    return np.concatenate([part, np.repeat(part[-1:], short, axis=0)]) if short and x.ndim else part


def _kind(dtype: np.dtype[np.generic]) -> str:
    """NumPy's letter; to it bfloat16 is a record."""
    return "f" if dtype.name == "bfloat16" else dtype.kind
