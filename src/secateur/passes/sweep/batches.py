"""Calibration data as users have them, made into batches that a network takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.ir import Array, Graph, InputError, Sym
from secateur.ir.graph import numpy_dtype


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs by name, of the size that the network takes; the first ``examples`` of them count. Labels if there are."""

    inputs: Mapping[str, Array]
    labels: Array | None
    examples: int


def batches(graph: Graph, data: Iterable[Any], most: int = 16) -> Iterator[Batch]:
    """Cut what the user gave into batches of at most ``most`` examples, or of the size that the network is fixed to.

    An item of ``data`` is ``x``, ``(x, y)`` or a mapping by input name, NumPy or torch, the batch along axis 0.
    Raises InputError that names the batch: wrong names, shapes or lengths, or NaN.
    """
    for number, item in enumerate(data):
        inputs, labels = _named(graph, item, number)
        total = _check(graph, inputs, labels, number)
        fixed = [v.shape[0] for v in graph.inputs if v.shape and not isinstance(v.shape[0], Sym)]
        size = int(fixed[0]) if fixed else most
        for start in range(0, total, size):
            part = {name: x[start : start + size] for name, x in inputs.items()}
            examples = min(size, total - start)
            if fixed and examples < size:  # a network of fixed batch: repeat the last one, which does not count
                part = {n: np.concatenate([x, np.repeat(x[-1:], size - examples, axis=0)]) for n, x in part.items()}
            yield Batch(part, None if labels is None else labels[start : start + examples], examples)


def _named(graph: Graph, item: Any, number: int) -> tuple[dict[str, Array], Array | None]:
    names = [v.name for v in graph.inputs]
    labels = None
    if isinstance(item, Mapping):
        unknown, missing = sorted(set(item) - set(names)), sorted(set(names) - set(item))
        if unknown or missing:
            wrong = f"unknown: {unknown}" if unknown else f"missing: {missing}"
            raise InputError(f"calibration, batch {number}: '{graph.name}' takes the inputs {names}; {wrong}")
        return {name: _array(item[name]) for name in names}, None
    if isinstance(item, tuple | list) and len(item) == 2:
        item, labels = item[0], _array(item[1]).reshape(-1)
    if len(names) != 1:
        raise InputError(
            f"calibration, batch {number}: '{graph.name}' takes {len(names)} inputs; give dicts by name: {names}"
        )
    return {names[0]: _array(item)}, labels


def _array(x: Any) -> Array:
    return np.asarray(x.detach().cpu().numpy() if hasattr(x, "detach") else x)


def _check(graph: Graph, inputs: dict[str, Array], labels: Array | None, number: int) -> int:
    where = f"calibration, batch {number}"
    sizes = set()
    for value in graph.inputs:
        x = inputs[value.name]
        fits = x.ndim == len(value.shape) and all(
            isinstance(want, Sym) or have == want for have, want in zip(x.shape[1:], value.shape[1:], strict=False)
        )
        if not fits:
            raise InputError(
                f"{where}: input '{value.name}' has shape {list(x.shape)}, '{graph.name}' takes "
                f"{list(map(repr, value.shape))}, any number of examples; resize or crop the data"
            )
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise InputError(f"{where}: input '{value.name}' holds NaN or infinity; leave such examples out")
        inputs[value.name] = np.ascontiguousarray(x, numpy_dtype(value.dtype))
        sizes.add(x.shape[0])
    if len(sizes) != 1:
        raise InputError(f"{where}: inputs of {sorted(sizes)} examples; all must have the same number")
    total = sizes.pop()
    if labels is not None and len(labels) != total:
        raise InputError(f"{where}: {total} inputs and {len(labels)} labels; give one label for each example")
    return int(total)
