"""The masked original of an ONNX file, made from the recipe and the file alone, and how two answers differ.

Nothing here knows secateur: a recipe names weights and values of the file, which are put to zero where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

Array = NDArray[Any]
Json = Mapping[str, Any]


class Unnamed(Exception):
    """The recipe names something that the file does not have, or asks for what masks cannot give."""


def answer(model: ModelProto | str, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs that are tensors, by name, from ONNX Runtime with its own options. Raises whatever it raises."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    source = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    found = zip([o.name for o in session.get_outputs()], session.run(None, dict(feeds)), strict=True)
    return {name: array for name, array in found if not isinstance(array, list)}


def masked(model: ModelProto, recipe: Json, feeds: Mapping[str, Array] | None = None) -> ModelProto:
    """The file with zeros where listed weights miss input columns, and where inputs of nodes under ``mixing`` channels.

    ``recipe`` is the JSON object; ``feeds`` is what the file takes, to learn shapes that cannot be inferred. Raises
    Unnamed.
    """
    made = ModelProto()
    made.CopyFrom(onnx.inliner.inline_local_functions(model) if model.functions else model)
    mask = _Mask(made, recipe)
    if feeds is not None:
        mask.look(feeds)
    nodes = [part for node in made.graph.node for part in mask.node(node)]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    unused = [m["node"] for m in recipe["mixing"] if m["node"] not in mask.met]
    unused += [name for name in recipe["weights"] if name not in mask.types and name not in mask.made]
    if unused:
        raise Unnamed(f"the file has no {', '.join(map(repr, unused))}")
    return made


class _Mask:
    """Rewrites nodes one by one; ``met`` are values under ``mixing`` that were found."""

    def __init__(self, model: ModelProto, recipe: Json) -> None:
        self.recipe, self.graph, self.met, self.count = recipe, model.graph, set[str](), 0
        self.imports, self.version = model.opset_import, model.ir_version
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.made = {o for n in model.graph.node for o in n.output}
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        infos = (*inferred.value_info, *inferred.input, *inferred.output)
        self.types = {i.name: i.type.tensor_type for i in infos}
        dense = [(t.name, t.data_type, t.dims) for t in model.graph.initializer]
        dense += [(t.values.name, t.values.data_type, t.dims) for t in model.graph.sparse_initializer]
        for name, kind, dims in dense:
            self.types[name] = helper.make_tensor_type_proto(kind, list(dims)).tensor_type

    def look(self, feeds: Mapping[str, Array]) -> None:
        """Run the file for the shapes of values that are masked and of which inference does not know the width."""
        inputs = {o: [*n.input, *_outer(n)] for n in self.graph.node for o in n.output}
        places = [(inputs[m["node"]][m["input"]], m["axis"]) for m in self.recipe["mixing"] if m["node"] in inputs]
        names = [name for name, axis in dict(places).items() if not self._known(name, axis)]
        if not names:
            return
        seen = ModelProto(opset_import=self.imports, ir_version=self.version)
        seen.graph.CopyFrom(self.graph)
        del seen.graph.output[:]
        seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        for name, array in answer(seen, feeds).items():
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            self.types[name] = helper.make_tensor_type_proto(kind, array.shape).tensor_type

    def _known(self, name: str, axis: int) -> bool:
        dims = self.types[name].shape.dim if name in self.types else ()
        return axis < len(dims) and dims[axis].dim_value > 0

    def node(self, node: NodeProto, place: str = "") -> list[NodeProto]:
        """The node with masked inputs, and before it those that mask them; ``place``: the branch that it stands in."""
        before: list[NodeProto] = []
        inputs, renamed = list(node.input), dict[str, str]()
        for slot, axis in _columns(node):
            name = inputs[slot]
            listed = next((n for n in (f"{place}/{name}", name) if n in self.recipe["weights"]), name)
            shape = self.recipe["original"]["weights"].get(listed)
            kept = self.recipe["weights"].get(listed, {}).get("kept", {})
            if shape is not None and str(axis % len(shape)) in kept:
                mask = _mask(shape, axis % len(shape), kept[str(axis % len(shape))])
                element = self.types[listed].elem_type if listed in self.types else onnx.TensorProto.FLOAT  # computed
                inputs[slot] = self._zeroed(before, name, mask, element)
        for m in self.recipe["mixing"]:
            if m["node"] in node.output:
                self.met.add(m["node"])
                if m["input"] < len(inputs):
                    inputs[m["input"]] = self._channels(before, inputs[m["input"]], m)
                else:  # what a subgraph reads from around it follows the node's own inputs
                    name = _outer(node)[m["input"] - len(inputs)]
                    renamed[name] = self._channels(before, name, m)
        renamed |= {old: new for old, new in zip(node.input, inputs, strict=True) if old != new and old in _free(node)}
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.input[:] = inputs
        _rename(changed, renamed)
        for attribute in changed.attribute:
            if attribute.HasField("g"):
                self._branch(attribute.g, f"{node.name or node.output[0]}/{attribute.name}")
        return [*before, changed]

    def _branch(self, graph: GraphProto, place: str) -> None:
        """Mask inside of a branch. Its own names are looked for with its place in front."""
        for tensor in graph.initializer:
            kind = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims)).tensor_type
            self.types[f"{place}/{tensor.name}"] = kind
            self.types.setdefault(tensor.name, kind)
        nodes = [part for node in graph.node for part in self.node(node, place)]
        del graph.node[:]
        graph.node.extend(nodes)

    def _channels(self, before: list[NodeProto], name: str, m: Json) -> str:
        """A value with the channels that are not kept at zero."""
        if m["statistics"]:
            raise Unnamed(f"'{m['node']}' has statistics over its kept channels")
        if not self._known(name, m["axis"]):
            raise Unnamed(f"the width of '{name}' is not known")
        dims = self.types[name].shape.dim
        keep = np.zeros(dims[m["axis"]].dim_value, bool)
        keep[m["kept"]] = True
        return self._zeroed(
            before,
            name,
            keep.reshape([-1 if i == m["axis"] else 1 for i in range(len(dims))]),
            self.types[name].elem_type,
        )

    def _zeroed(self, before: list[NodeProto], name: str, mask: Array, element: int) -> str:
        """The value where the mask is true, zero elsewhere."""
        self.count += 1
        keep, zero, out = (f"{what}.{self.count}" for what in ("mask", "zero", "masked"))
        kind = helper.tensor_dtype_to_np_dtype(element)
        if self.opset < 9:  # there is no Where yet
            self.graph.initializer.append(numpy_helper.from_array(mask.astype(kind), keep))
            before.append(helper.make_node("Mul", [name, keep], [out]))
        else:
            self.graph.initializer.append(numpy_helper.from_array(mask, keep))
            self.graph.initializer.append(numpy_helper.from_array(np.zeros((), kind), zero))
            before.append(helper.make_node("Where", [keep, name, zero], [out]))
        return out


def _free(node: NodeProto) -> list[str]:
    """Names that the node's subgraphs read and do not define, in order of first use."""
    found: dict[str, None] = {}
    for graph in (a.g for a in node.attribute if a.HasField("g")):
        defined = {i.name for i in (*graph.input, *graph.initializer)}
        for inner in graph.node:
            found |= dict.fromkeys(n for n in (*inner.input, *_free(inner)) if n and n not in defined)
            defined |= set(inner.output)
        found |= dict.fromkeys(o.name for o in graph.output if o.name not in defined)
    return list(found)


def _outer(node: NodeProto) -> list[str]:
    return [name for name in _free(node) if name not in node.input]


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """Have the node's subgraphs read other values from around them."""
    for graph in (a.g for a in node.attribute if a.HasField("g")):
        for inner in graph.node:
            inner.input[:] = [names.get(i, i) for i in inner.input]
            _rename(inner, names)
        for output in graph.output:
            output.name = names.get(output.name, output.name)


def _columns(node: NodeProto) -> list[tuple[int, int]]:
    """Which inputs of a layer may be its weight, and along which axis of each the layer's own inputs lie."""
    flags = {a.name: a.i for a in node.attribute}
    if node.domain not in ("", "ai.onnx"):
        return []
    if node.op_type == "Conv":
        return [(1, 1)]
    if node.op_type == "ConvTranspose":
        return [(1, 0)]
    if node.op_type == "Gemm":
        return [(1, 1 if flags.get("transB") else 0), (0, 0 if flags.get("transA") else 1)]
    if node.op_type in ("LSTM", "GRU", "RNN"):  # features of the input, and hidden units that are fed back
        return [(1, 2), (2, 2)]
    return [(1, -2), (0, -1)] if node.op_type == "MatMul" else []


def _mask(shape: Sequence[int], axis: int, kept: Any) -> Array:
    """True where the weight stays; one list a group for grouped convolutions."""
    mask = np.zeros(shape, bool)
    if kept and isinstance(kept[0], list):
        rows = shape[0] // len(kept)
        for group, columns in enumerate(kept):
            mask[group * rows : (group + 1) * rows, columns] = True
    else:
        mask[(slice(None),) * axis + (kept,)] = True
    return mask


def difference(want: Mapping[str, Array], have: Mapping[str, Array]) -> tuple[float, str]:
    """The largest difference of any output over its largest value, and what differs in words."""
    if list(want) != list(have):
        return float("inf"), f"outputs {list(have)} instead of {list(want)}"
    worst, text = 0.0, ""
    for name, a in want.items():
        b = np.asarray(have[name])
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf"), f"'{name}' is {b.dtype}{b.shape} instead of {a.dtype}{a.shape}"
        if a.dtype.kind in "OSU":
            if not np.array_equal(a, b):
                return float("inf"), f"'{name}' has other text"
            continue
        x, y = a.astype(np.float64), b.astype(np.float64)
        fine = np.isfinite(x)
        if not np.array_equal(x[~fine], y[~fine], equal_nan=True) or not np.isfinite(y[fine]).all():
            return float("inf"), f"'{name}' differs in what is finite"
        if not fine.any():
            continue
        gap, size = np.abs(x[fine] - y[fine]).max(), np.abs(x[fine]).max()
        found = float(gap / size if size > 0 else gap)
        if found > worst:
            worst, text = found, f"'{name}' by {found:.1e}"
    return worst, text
