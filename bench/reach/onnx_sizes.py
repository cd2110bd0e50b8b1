"""An ONNX file and what was written from it next to each other in ONNX Runtime, at sizes that nobody chose for them.

    python -m bench.reach.onnx_sizes ORIGINAL.onnx WRITTEN.onnx [--recipe R.json] [--set sr=16000]
    python -m bench.reach.onnx_sizes ORIGINAL.onnx LIBRARY.so                         at the size that it was built for

Each dynamic axis of the original is tried at sizes that are coprime and no multiples of 32, then at others; the first
three that the original takes are compared. With a recipe the original's missing columns are zero (onnx_reference).
Roundings are told by the original itself: what a millionth of noise on its inputs does to its outputs; on its weights
where no input holds floats. Prints one JSON line. ONNX files are judged without anything of secateur: by their user's
runtime alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from bench.reach import onnx_reference

Array = NDArray[Any]
Sizes = Mapping[str, int]
BATCHES = (3, 5, 2, 1)
SIZES = (77, 45, 101, 233, 17, 335, 577, 1601, 16001, 3, 64, 96, 160, 224, 320, 512, 576, 640, 1024, 1280, 16000, 1)
TRIED = 3
LARGEST = 1 << 22  # elements of an input
NOISE = 1e-6
SHARE = 10.0  # times what that noise does: roundings go no further
TOLERANCE = {"float16": 5e-2, "quantised": 3e-2, "other": 1e-4}


@dataclass(frozen=True)
class Input:
    """An input of a file: sizes by number, dynamic ones by name (their own, or the input's with the axis)."""

    name: str
    shape: tuple[int | str, ...]
    dtype: np.dtype[Any]


def inputs_of(model: ModelProto) -> list[Input]:
    """What the file takes, without initialisers."""
    given = {t.name for t in model.graph.initializer}
    found = []
    for info in model.graph.input:
        if info.name not in given:
            tensor = info.type.tensor_type
            shape = tuple(
                d.dim_value if d.dim_value > 0 else (d.dim_param.strip("?") or f"{info.name}:{i}")
                for i, d in enumerate(tensor.shape.dim)
            )
            found.append(Input(info.name, shape, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))))
    return found


def feed(inputs: Sequence[Input], sizes: Sizes, values: Mapping[str, float], seed: int) -> dict[str, Array]:
    """Normal floats, loud int16 samples, zeros and ones for other integers, mostly true; ``values`` as said."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for item in inputs:
        shape = tuple(sizes[s] if isinstance(s, str) else s for s in item.shape)
        if item.name in values:
            array: Array = np.full(shape, values[item.name])
        elif item.dtype.kind == "f":
            array = rng.standard_normal(shape)
        elif item.dtype.kind == "b":
            array = rng.random(shape) < 0.8
        else:
            array = rng.integers(0, 2, shape) * (3000 if item.dtype == np.int16 else 1)
        found[item.name] = array.astype(item.dtype)
    return found


class File:
    """A model in ONNX Runtime with the runtime's own options."""

    def __init__(self, model: ModelProto | str) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        source = model if isinstance(model, str) else model.SerializeToString()
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.outputs = [o.name for o in self._session.get_outputs()]

    def run(self, given: Mapping[str, Array]) -> dict[str, Array] | str:
        """The outputs by name, or the runtime's first line of why not."""
        try:
            return dict(zip(self.outputs, self._session.run(None, dict(given)), strict=True))
        except Exception as error:  # the runtime's own types
            return (str(error).strip().splitlines() or [type(error).__name__])[0]


def first(inputs: Sequence[Input], original: File, values: Mapping[str, float], fixed: Sizes) -> dict[str, int]:
    """Sizes of all dynamic axes that the original takes, these among them. Raises ValueError with its complaint."""
    lead = {s for i in inputs for s in i.shape[:1] if isinstance(s, str)}
    names = [s for i in inputs for s in i.shape if isinstance(s, str)]
    loudest = [s for s in inputs[0].shape if isinstance(s, str)][-1:]
    why = ""
    for size in SIZES if set(names) - lead else (1,):
        for wide in (set(names) - lead, set(loudest), set(names)):
            sizes = {n: size if n in wide else 1 for n in names} | dict(fixed)
            if too_large(inputs, sizes):
                continue
            answer = original.run(feed(inputs, sizes, values, 0))
            if not isinstance(answer, str):
                return sizes
            why = answer
    raise ValueError(why)


def too_large(inputs: Sequence[Input], sizes: Sizes) -> bool:
    return any(np.prod([sizes[s] if isinstance(s, str) else s for s in i.shape] or [1]) > LARGEST for i in inputs)


def choices(
    inputs: Sequence[Input], original: File, values: Mapping[str, float], fixed: Sizes
) -> Iterator[dict[str, int]]:
    """The first sizes, then up to three of each axis by itself, or tied to what has the same size where it must be.

    ``fixed``: the sizes of axes that the written file has fixed.
    """
    base = first(inputs, original, values, fixed)
    yield base
    lead = {s for i in inputs for s in i.shape[:1] if isinstance(s, str)} | {n for n in base if "batch" in n.lower()}
    for name in base:
        found = 0
        tied = [n for n in base if base[n] == base[name]]
        for together in ([name], tied):
            for size in BATCHES if name in lead else SIZES:
                sizes = base | dict.fromkeys(together, size)
                if found == TRIED or sizes == base or too_large(inputs, sizes):
                    continue
                if not isinstance(original.run(feed(inputs, sizes, values, 0)), str):
                    found += 1
                    yield sizes
            if found or len(tied) == 1:
                break


class Built:
    """A library, as a file of fixed sizes."""

    def __init__(self, path: Path) -> None:
        import secateur
        from secateur.ir import numpy_dtype

        self._library = secateur.load_library(path)
        self.inputs = [Input(p.name, p.shape, numpy_dtype(p.dtype)) for p in self._library.metadata.inputs]
        self.outputs = [port.name for port in self._library.metadata.outputs]

    def run(self, given: Mapping[str, Array]) -> dict[str, Array] | str:
        """The outputs by name, or why not."""
        import secateur

        names = [item.name for item in self.inputs]
        try:
            found = self._library(*(given[name] for name in names if name in given))
        except secateur.InputError as error:
            return str(error)
        return dict(zip(self.outputs, map(np.asarray, found if isinstance(found, tuple) else (found,)), strict=True))


def compare(source: Path, target: Path, recipe: Mapping[str, Any] | None, values: Mapping[str, float]) -> Any:
    """The row: at each choice of sizes the error, or how the written file refuses them."""
    model, original = onnx.load(source), File(str(source))
    inputs = inputs_of(model)
    made = Built(target) if target.suffix == ".so" else File(str(target))
    kept = fixed_sizes(inputs, made.inputs if isinstance(made, Built) else inputs_of(onnx.load(target)))
    try:
        given = feed(inputs, first(inputs, original, values, kept), values, 1)
        masked = model if recipe is None else onnx_reference.masked(model, recipe, given)
        reference = original if recipe is None else File(masked)
    except onnx_reference.Unnamed as unnamed:
        return {"skipped": str(unnamed)}
    except ValueError as complaint:
        return {"original": str(complaint)[:200]}
    worst, swing, limit = 0.0, 0.0, tolerance(model)
    row: dict[str, list[Any]] = {"sizes": [], "fixed": [], "refused": [], "differ": []}
    for sizes in choices(inputs, original, values, kept):
        given = feed(inputs, sizes, values, 1)
        want, have = reference.run(given), made.run(given)
        if isinstance(want, str):
            continue
        if isinstance(have, str):
            told = any(sizes[name] != size for name, size in kept.items())
            row["fixed" if told else "refused"].append({**sizes, "why": have[:200]})
            continue
        gap, what = onnx_reference.difference(want, have)
        rough = 0.0 if gap <= limit else swung(reference, masked, given, want)
        if not gap <= max(limit, SHARE * rough):
            row["differ"].append({**sizes, "what": what})
        worst, swing = max(worst, gap), max(swing, rough)
        row["sizes"].append(sizes)
    return {"max_rel_err": worst, "swing": swing, "tolerance": limit, **row}


def fixed_sizes(inputs: Sequence[Input], theirs: Sequence[Input]) -> dict[str, int]:
    """The axes that are dynamic in the original and have a size in what was written."""
    written = {item.name: item for item in theirs}
    return {
        mine: other
        for item in inputs
        if item.name in written
        for mine, other in zip(item.shape, written[item.name].shape, strict=True)
        if isinstance(mine, str) and isinstance(other, int)
    }


def swung(reference: File, model: ModelProto, given: Mapping[str, Array], want: Mapping[str, Array]) -> float:
    """How far a millionth of noise moves the outputs."""
    rng = np.random.default_rng(0)

    def noisy(array: Array) -> Array:
        return (array * (1 + NOISE * rng.choice((-1.0, 1.0), array.shape))).astype(array.dtype)

    moved = {name: noisy(x) for name, x in given.items() if x.dtype.kind == "f"}
    if not moved:
        made = ModelProto()
        made.CopyFrom(model)
        for tensor in made.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
                tensor.CopyFrom(numpy_helper.from_array(noisy(numpy_helper.to_array(tensor)), tensor.name))
        reference = File(made)
    found = reference.run({**given, **moved})
    return 0.0 if isinstance(found, str) else onnx_reference.difference(want, found)[0]


def tolerance(model: ModelProto) -> float:
    """By what the file computes with."""
    if any("Quant" in n.op_type or "Integer" in n.op_type for n in model.graph.node):
        return TOLERANCE["quantised"]
    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer)
    return TOLERANCE["float16" if half else "other"]


def main() -> int:
    """Compare two files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    parser.add_argument("written", type=Path)
    parser.add_argument("--recipe", type=Path, default=None)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="what an input must hold")
    arguments = parser.parse_args()
    recipe = None if arguments.recipe is None else json.loads(arguments.recipe.read_text())
    values = {name: float(value) for name, _, value in (pair.partition("=") for pair in arguments.set)}
    print(json.dumps(compare(arguments.original, arguments.written, recipe, values)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
