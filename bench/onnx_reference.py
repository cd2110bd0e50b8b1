"""The masked original of an ONNX file, made from the recipe and the file alone.

Nothing here reads secateur's graphs: a recipe names weights and values of the file, and those are multiplied with
zeros and ones where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

Array = NDArray[Any]
# Which input of a layer is its weight, and along which of its axes the layer's inputs lie.
LAYERS = {"Conv": (1, 1), "ConvTranspose": (1, 0), "Gemm": (1, 0), "MatMul": (1, -2)}


class Unnamed(Exception):
    """The recipe names something that the file does not have."""


def masked(model: ModelProto, recipe: Mapping[str, Any]) -> ModelProto:
    """The file with the missing input columns of every listed weight, and the missing channels of every mixing
    node's input, at zero. ``recipe`` is the JSON object. Raises Unnamed."""
    made = ModelProto()
    made.CopyFrom(onnx.inliner.inline_local_functions(model) if model.functions else model)
    mask = _Mask(made, recipe)
    nodes = [part for node in made.graph.node for part in mask.node(node)]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    unused = [m["node"] for m in recipe["mixing"] if m["node"] not in mask.met]
    unused += [name for name in recipe["weights"] if name not in mask.known]
    if unused:
        raise Unnamed(f"the file has no {', '.join(map(repr, unused))}")
    return made


class _Mask:
    """Rewrites nodes one by one; ``met`` are values under ``mixing`` that were found, ``known`` all names."""

    def __init__(self, model: ModelProto, recipe: Mapping[str, Any]) -> None:
        self.recipe, self.graph, self.met = recipe, model.graph, set[str]()
        self.opsets = model.opset_import
        sparse = {s.values.name for s in self.graph.sparse_initializer}
        self.known = {t.name for t in self.graph.initializer} | {o for n in self.graph.node for o in n.output} | sparse
        self.count = 0

    def node(self, node: NodeProto) -> list[NodeProto]:
        before: list[NodeProto] = []
        inputs = list(node.input)
        if node.op_type in LAYERS and node.domain in ("", "ai.onnx"):
            for place, axis in self._weights(node):
                name = inputs[place]
                kept = self.recipe["weights"].get(name, {}).get("kept", {})
                shape = self.recipe["original"]["weights"].get(name)
                if shape is not None and str(axis % len(shape)) in kept:
                    inputs[place] = self._zeroed(
                        before, name, _mask(shape, axis % len(shape), kept[str(axis % len(shape))])
                    )
        for m in self.recipe["mixing"]:
            if m["node"] not in node.output:
                continue
            self.met.add(m["node"])
            if m["statistics"]:
                raise Unnamed(f"statistics over the kept channels of {m['node']}")
            inputs[m["input"]] = self._along(before, inputs[m["input"]], m)
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.input[:] = inputs
        return [*before, changed]

    def _weights(self, node: NodeProto) -> list[tuple[int, int]]:
        place, axis = LAYERS[node.op_type]
        if node.op_type == "Gemm":
            flags = {a.name: a.i for a in node.attribute}
            return [(1, 1 if flags.get("transB") else 0), (0, 0 if flags.get("transA") else 1)]
        if node.op_type == "MatMul":
            return [(1, -2), (0, -1)]
        if node.op_type == "ConvTranspose" and next((a.i for a in node.attribute if a.name == "group"), 1) > 1:
            return []
        return [(place, axis)]

    def _zeroed(self, before: list[NodeProto], name: str, mask: Array) -> str:
        """The value where the mask is true, zero elsewhere."""
        self.count += 1
        keep, zero, out = (f"{what}.{self.count}" for what in ("mask", "zero", "masked"))
        element = self._type(name).elem_type
        kind = helper.tensor_dtype_to_np_dtype(element)
        if self.opsets[0].version < 9:  # there is no Where yet
            self.graph.initializer.append(numpy_helper.from_array(mask.astype(kind), keep))
            before.append(helper.make_node("Mul", [name, keep], [out]))
        else:
            self.graph.initializer.append(numpy_helper.from_array(mask, keep))
            self.graph.initializer.append(numpy_helper.from_array(np.zeros((), kind), zero))
            before.append(helper.make_node("Where", [keep, name, zero], [out]))
        return out

    def _along(self, before: list[NodeProto], name: str, m: Mapping[str, Any]) -> str:
        """The value with the channels that are not kept at zero; its width along the axis is read at run time."""
        width = m.get("size")
        if width is None:
            width = self._width(name, m["axis"])
        rank = self._rank(name)
        keep = np.zeros(width, bool)
        keep[m["kept"]] = True
        return self._zeroed(before, name, keep.reshape([-1 if i == m["axis"] else 1 for i in range(rank)]))

    def _type(self, name: str) -> Any:
        if not hasattr(self, "_types"):
            model = ModelProto()
            model.graph.CopyFrom(self.graph)
            model.opset_import.extend(self.opsets)
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
            infos = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
            self._types = {i.name: i.type.tensor_type for i in infos}
            for t in self.graph.initializer:
                self._types[t.name] = helper.make_tensor_type_proto(t.data_type, list(t.dims)).tensor_type
        return self._types[name]

    def _rank(self, name: str) -> int:
        return len(self._type(name).shape.dim)

    def _width(self, name: str, axis: int) -> int:
        return int(self._type(name).shape.dim[axis].dim_value)


def _mask(shape: Sequence[int], axis: int, kept: Any) -> Array:
    """True where the weight stays, False in missing columns; one list a group for grouped convolutions."""
    mask = np.zeros(shape, bool)
    if kept and isinstance(kept[0], list):
        rows = shape[0] // len(kept)
        for group, columns in enumerate(kept):
            mask[group * rows : (group + 1) * rows, columns] = True
    else:
        mask[(slice(None),) * axis + (kept,)] = True
    return mask
