"""Mutations of ONNX files: what reaches a reader from damaged, hand-edited and hostile files.

``mutant(number)`` is a function of its number alone. Each starts from one of the seeds, small valid files of every form
that ONNX has (attributes, subgraphs, functions, packed, sparse and external data), and changes one to three fields, or
some bytes of the file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnx import helper as h

from bench.reach.mutant_seeds import SEEDS, seeds

WHOLE = (0, 1, -1, 2, 3, 5, 7, 64, 255, 10_000, 1 << 20, (1 << 31) - 1, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63))
REAL = (0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
TEXT = (
    b"", b"NOTSET", b"SAME_UPPER", b"reflect", b"linear", b"reverse", b"tanh", b"\xff\xfe", b"\x1b[2Jx", b"a'b\"c\n",
    b"x" * 5000,
)  # fmt: skip
OPS = (
    "Relu", "Add", "Mul", "Conv", "ConvTranspose", "Gemm", "MatMul", "Reshape", "Flatten", "Transpose", "Concat",
    "Split",
    "Slice", "Gather", "Squeeze", "Unsqueeze", "Expand", "Tile", "Pad", "Resize", "Upsample", "Softmax",
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "LRN", "MaxPool", "AveragePool",
    "GlobalAveragePool", "ReduceMean", "ReduceSum", "ArgMax", "LSTM", "GRU", "RNN", "Cast", "Clip", "Shape", "Range",
    "OneHot", "ConstantOfShape", "Constant", "Identity", "If", "Loop", "Scan", "TopK", "NonZero", "DepthToSpace",
    "SpaceToDepth", "PRelu", "Where", "Einsum", "CumSum", "Dropout", "QuantizeLinear", "DequantizeLinear",
    "RandomNormal", "SequenceConstruct", "StringNormalizer", "Nonexistent",
)  # fmt: skip

Choose = random.Random


# -- mutations of fields --------------------------------------------------------------------------------------
def _graphs(model: ModelProto) -> list[GraphProto]:
    found = [model.graph]
    for graph in found:
        for node in graph.node:
            for attr in node.attribute:
                found += [attr.g] if attr.type == attr.GRAPH else []
    return found


def _nodes(model: ModelProto) -> list[NodeProto]:
    return [n for g in _graphs(model) for n in g.node] + [n for f in model.functions for n in f.node]


def _attributes(model: ModelProto) -> list[AttributeProto]:
    return [a for n in _nodes(model) for a in n.attribute]


def _tensors(model: ModelProto) -> list[TensorProto]:
    found = [t for g in _graphs(model) for t in g.initializer]
    found += [t for g in _graphs(model) for s in g.sparse_initializer for t in (s.values, s.indices)]
    return found + [a.t for a in _attributes(model) if a.type == a.TENSOR]


def _ints(c: Choose, like: Sequence[int]) -> list[int]:
    values = list(like) or [1]
    what = c.randrange(5)
    if what == 0:
        return values[: c.randrange(len(values) + 1)]
    if what == 1:
        return values + [c.choice(WHOLE) for _ in range(c.randint(1, 4))]
    values[c.randrange(len(values))] = c.choice(WHOLE)
    return values


def attribute_value(c: Choose, m: ModelProto) -> None:
    a = c.choice(_attributes(m))
    if a.type == a.INT:
        a.i = c.choice(WHOLE)
    elif a.type == a.FLOAT:
        a.f = c.choice(REAL)
    elif a.type == a.STRING:
        a.s = c.choice(TEXT)
    elif a.type == a.INTS:
        a.ints[:] = _ints(c, a.ints)
    elif a.type == a.STRINGS:
        a.strings[:] = [c.choice(TEXT) for _ in range(c.randrange(4))]
    else:
        tensor_data(c, m)


def attribute_kind(c: Choose, m: ModelProto) -> None:
    a = c.choice(_attributes(m))
    if c.random() < 0.5:
        a.type = c.choice(AttributeProto.AttributeType.values())
    for field in ("i", "f", "s", "ints", "floats", "strings", "t", "g"):
        if c.random() < 0.3:
            a.ClearField(field)
    what = c.randrange(4)
    if what == 0:
        a.i = c.choice(WHOLE)
    elif what == 1:
        a.f = c.choice(REAL)
    elif what == 2:
        a.s = c.choice(TEXT)
    else:
        a.ints[:] = _ints(c, a.ints)


def attribute_list(c: Choose, m: ModelProto) -> None:
    node = c.choice(_nodes(m))
    what = c.randrange(4)
    if what == 0 and node.attribute:
        del node.attribute[c.randrange(len(node.attribute))]
    elif what == 1 and node.attribute:
        c.choice(node.attribute).name = c.choice(["axis", "pads", "kernel_shape", "mode", "", "\x1b[31m", "to", "axes"])
    else:
        given = AttributeProto()
        given.CopyFrom(c.choice(_attributes(m)))  # first: it may hold the node itself
        node.attribute.append(given)


def tensor_data(c: Choose, m: ModelProto) -> None:
    t = c.choice(_tensors(m))
    what = c.randrange(5)
    if what == 0 and t.raw_data:
        t.raw_data = t.raw_data[: c.randrange(len(t.raw_data))]
    elif what == 1:
        t.raw_data += bytes(c.randrange(256) for _ in range(c.choice((1, 3, 4, 8, 64))))
    elif what == 2 and t.raw_data:
        data = bytearray(t.raw_data)
        for _ in range(c.randint(1, 8)):
            data[c.randrange(len(data))] = c.randrange(256)
        t.raw_data = bytes(data)
    elif what == 3:
        t.float_data.append(1.0)
    else:
        t.ClearField("raw_data")
        if c.random() < 0.5:
            t.int64_data[:] = [c.choice(WHOLE) for _ in range(c.randrange(5))]


def tensor_shape(c: Choose, m: ModelProto) -> None:
    t = c.choice(_tensors(m))
    t.dims[:] = _ints(c, t.dims)


def tensor_kind(c: Choose, m: ModelProto) -> None:
    c.choice(_tensors(m)).data_type = c.choice((*range(27), 99, -1))


def tensor_place(c: Choose, m: ModelProto) -> None:
    t = c.choice(_tensors(m))
    t.data_location = TensorProto.EXTERNAL
    if c.random() < 0.7 and not t.external_data:
        t.external_data.add(key="location", value=c.choice(["weights.bin", "../../etc/passwd", "/dev/zero", "", "no"]))
    for entry in t.external_data:
        if c.random() < 0.4:
            entry.value = c.choice(["0", "-1", "4096", "x", "1e9", str(1 << 63), "weights.bin", "."])
    if c.random() < 0.4:
        t.external_data.add(
            key=c.choice(["offset", "length", "location", "?"]), value=c.choice(["0", "7", "-8", "99999999999"])
        )


def node_kind(c: Choose, m: ModelProto) -> None:
    node = c.choice(_nodes(m))
    if c.random() < 0.9:
        node.op_type = c.choice(OPS)
    else:
        node.domain = c.choice(["", "own", "ai.onnx.ml", "com.microsoft", "\x1b]0;x\x07"])


def node_inputs(c: Choose, m: ModelProto) -> None:
    node = c.choice(_nodes(m))
    known = [x for n in _nodes(m) for x in (*n.input, *n.output)] + [t.name for t in _tensors(m)]
    names = node.input if c.random() < 0.8 else node.output
    what = c.randrange(4)
    if what == 0 and names:
        del names[c.randrange(len(names))]
    elif what == 1:
        names.append(c.choice([*known, ""]))
    elif names:
        names[c.randrange(len(names))] = c.choice([*known, *known, "", "nowhere", "\x1b[2J", "self", "0"])


def node_list(c: Choose, m: ModelProto) -> None:
    holders = [g.node for g in _graphs(m) if g.node] + [f.node for f in m.functions if f.node]
    nodes = c.choice(holders)
    at, what = c.randrange(len(nodes)), c.randrange(3)
    node = NodeProto()
    node.CopyFrom(nodes[at])
    if what != 1:
        del nodes[at]
    if what != 0:
        nodes.insert(c.randrange(len(nodes) + 1), node)


def interface(c: Choose, m: ModelProto) -> None:
    graph = c.choice(_graphs(m))
    infos = c.choice([x for x in (graph.input, graph.output, graph.value_info) if x] or [m.graph.input])
    info, what = c.choice(infos), c.randrange(6)
    shape = info.type.tensor_type.shape
    if what == 0:
        info.name = c.choice(["", "x", "v1", "w0", "0", "self", "None", "\x1b[31mred", "a b", "class"])
    elif what == 1:
        info.type.tensor_type.elem_type = c.choice((*range(27), 99))
    elif what == 2 and shape.dim:
        c.choice(shape.dim).dim_value = c.choice(WHOLE)
    elif what == 3:
        dim = shape.dim.add()
        dim.dim_param = c.choice(["N", "", "H", "\n", "a.b"])
    elif what == 4:
        info.type.sequence_type.elem_type.tensor_type.elem_type = 1
    else:
        infos.remove(info)


def weight_list(c: Choose, m: ModelProto) -> None:
    graph = c.choice(_graphs(m))
    weights = graph.initializer
    if not weights:
        return interface(c, m)
    t, what = c.choice(weights), c.randrange(3)
    if what == 0:
        weights.remove(t)
    elif what == 1:
        weights.add().CopyFrom(t)
    else:
        t.name = c.choice(["", "x", "v1", c.choice(weights).name, "\x1b[0m"])


def weight_ints(c: Choose, m: ModelProto) -> None:
    """Other numbers in tensors that say shapes, axes and counts."""
    found = [t for t in _tensors(m) if t.data_type == TensorProto.INT64 and t.raw_data and len(t.raw_data) % 8 == 0]
    if not found:
        return tensor_data(c, m)
    t = c.choice(found)
    values = _ints(c, np.frombuffer(t.raw_data, np.int64).tolist())
    t.raw_data = np.array(values, np.int64).tobytes()
    if t.dims or len(values) != 1:
        t.dims[:] = [len(values)]


def header(c: Choose, m: ModelProto) -> None:
    what = c.randrange(5)
    if what == 0:
        m.opset_import[0].version = c.choice((*range(-1, 30), 1 << 40))
    elif what == 1:
        m.opset_import[0].domain = c.choice(["own", "ai.onnx", "ai.onnx.ml"])
    elif what == 2:
        m.ir_version = c.choice((-1, 0, 1, 3, 4, 99, 1 << 40))
    elif what == 3 and m.functions:
        f = c.choice(m.functions)
        f.node.add().CopyFrom(h.make_node(c.choice(m.functions).name, list(f.input), list(f.output), domain="own"))
    else:
        m.graph.name = c.choice(["", "\x1b[2J", "a/b", "x" * 3000, "a b"])


FIELDS: tuple[Callable[[Choose, ModelProto], None], ...] = (
    attribute_value, attribute_value, attribute_kind, attribute_list, tensor_data, tensor_shape, tensor_kind,
    tensor_place, node_kind, node_kind, node_inputs, node_inputs, node_list, interface, weight_list, weight_ints,
    weight_ints, header,
)  # fmt: skip


def _bytes(c: Choose, data: bytes) -> bytes:
    body = bytearray(data)
    what = c.randrange(4)
    if what == 0:
        return bytes(body[: c.randrange(len(body))])
    for _ in range(c.randint(1, 6)):
        at = c.randrange(len(body))
        if what == 1:
            body[at] ^= 1 << c.randrange(8)
        elif what == 2:
            body[at] = c.randrange(256)
        else:
            body[at:at] = bytes(c.randrange(256) for _ in range(c.randint(1, 4)))
    return bytes(body)


def mutant(number: int) -> tuple[str, bytes]:
    """The seed's name and the bytes of the mutated file with this number."""
    c = Choose(number)
    at = c.randrange(len(SEEDS))
    data = seeds()[at]
    if c.random() < 0.2:
        return SEEDS[at].__name__, _bytes(c, data)
    model = ModelProto.FromString(data)
    for _ in range(c.choice((1, 1, 1, 2, 3))):
        c.choice(FIELDS)(c, model)
    return SEEDS[at].__name__, model.SerializeToString()


def write(number: int, folder: Path) -> tuple[str, Path]:
    """Write the mutant as ``model.onnx``, with its weights' own file where the seed has one."""
    name, data = mutant(number)
    path = folder / "model.onnx"
    if name == "outside":
        data = _outside(number, data, folder)
    path.write_bytes(data)
    return name, path


def _outside(number: int, data: bytes, folder: Path) -> bytes:
    """Move the weights to a file of their own, and damage that at times too."""
    c = Choose(-number - 1)
    body = bytearray()
    try:
        model = ModelProto.FromString(data)
    except Exception:
        return data
    for t in model.graph.initializer:
        if t.data_location == TensorProto.EXTERNAL or len(t.raw_data) < 64:
            continue
        entries = {"location": "weights.bin", "offset": str(len(body)), "length": str(len(t.raw_data))}
        for key, value in entries.items():
            if c.random() < 0.05:
                value = c.choice(["", "-1", "5", "x", "999999999", str(1 << 64), "../weights.bin"])
            if c.random() > 0.03:
                t.external_data.add(key=key, value=value)
        body += t.raw_data
        t.ClearField("raw_data")
        t.data_location = TensorProto.EXTERNAL
    (folder / "weights.bin").write_bytes(bytes(body[: c.randrange(len(body) + 1)] if c.random() < 0.2 else body))
    return bytes(model.SerializeToString())
