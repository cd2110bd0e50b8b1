"""ONNX out: ``to_onnx`` builds a ModelProto, ``save`` writes it to a file.

A graph that came from ONNX keeps its operator set, names, metadata and dynamic axes; nodes that no pass has changed are
written as they were read. Other graphs are written in operator set 18, those with bfloat16 in 22.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from secateur.ir.errors import InputError, Unsupported
from secateur.ir.files import Job, is_special, write_all
from secateur.ir.followed import followed_shapes, has_symbols
from secateur.ir.graph import Array, Graph, Sym, Value
from secateur.ir.onnx_origin import CAPTURED, ZEROS, OnnxOrigin

from .complex_numbers import as_pairs
from .compute import COMPUTE
from .emitter import Emitter, Rule, element_type
from .movement import MOVES
from .opaque import emit_opaque, emit_original
from .pieces import in_pieces
from .stream import full_tensor, is_plain, tensor_head, write_model
from .unary import UNARY_RULES
from .varying import at_its_size, closed, following, with_followed

OPSET, IR_VERSION = 18, 8
WITH_BFLOAT16 = 22, 10  # the first in which convolutions and pools take it
OLDEST_IR = 4  # the first in which weights need not be listed as inputs
LARGEST = (1 << 31) - (1 << 24)  # bytes that a protobuf file can hold, with room for the graph itself
EMIT: dict[str, Rule] = {**COMPUTE, **UNARY_RULES, **MOVES, "opaque": emit_opaque}

__all__ = ["EMIT", "frame", "jobs", "part_to_onnx", "save", "to_onnx", "why_fixed"]


def to_onnx(graph: Graph) -> ModelProto:
    """The graph as an ONNX model with weights inside and the shape of every value.

    Raises Unsupported where an operator cannot be written, with its name and the reason.
    """
    model, arrays = frame(graph)
    for name, array in arrays.items():
        model.graph.initializer.append(full_tensor(name, array))
    return model


def part_to_onnx(graph: Graph) -> ModelProto:
    """A part of a graph as a model of its own: its inputs and outputs are called what the graph calls them.

    Raises Unsupported as ``to_onnx`` does.
    """
    origin = graph.note(OnnxOrigin)
    if origin is None:
        return to_onnx(as_pairs(closed(graph), part=True))
    header = ModelProto.FromString(origin.header)
    del header.graph.input[:], header.graph.output[:]
    return to_onnx(graph.with_note(dataclasses.replace(origin, header=header.SerializeToString())))


def frame(graph: Graph) -> tuple[ModelProto, dict[str, Array]]:
    """The model without its weights, and the weights by their names in the file.

    A captured network whose open sizes cannot be written is written for the sizes of its example: see
    ``why_fixed``. Raises Unsupported as ``to_onnx`` does.
    """
    try:
        return _frame(graph)
    except Unsupported:
        fixed = at_its_size(graph)
        if fixed is None:
            raise
        return _frame(fixed)


def why_fixed(graph: Graph) -> str | None:
    """Why a file of this captured network takes the sizes of its example alone; None where it takes others, too."""
    fixed = at_its_size(graph)
    if fixed is None:
        return None
    try:
        _frame(graph)
    except Unsupported as error:
        with contextlib.suppress(Unsupported):
            _frame(fixed)
            return str(error)
    return None


def _frame(graph: Graph) -> tuple[ModelProto, dict[str, Array]]:
    graph = in_pieces(graph)
    origin = graph.note(OnnxOrigin)
    graph = as_pairs(graph) if origin is None else graph
    model = _header(graph, origin)
    names = dict(origin.names) if origin else {}
    opset = origin.opset if origin else _version(graph)[0]
    taken = {names.get(n, n) for n in (*graph.values, *graph.weights)}
    emitted = graph if origin is not None else with_followed(graph)  # nodes of a file are mostly written as they were
    emitter = Emitter(emitted, opset, names, taken)
    for node in emitted.nodes:
        emitter.label = node.label
        emitter.current_outs = frozenset(emitter.outs(node))
        if origin is None or not emit_original(emitter, node, origin):
            EMIT[node.op](emitter, node)
    arrays = {emitter.real(n): a for n, a in graph.weights.items()}
    outputs = _outputs(graph, emitter, arrays, origin)
    arrays.update(emitter.extra)
    del model.graph.input[:], model.graph.output[:], model.graph.value_info[:]
    varying = followed_shapes(graph)
    old_inputs = _infos(origin, "input")
    model.graph.input.extend(
        _info(v, emitter.real(v.name), varying, old_inputs.get(emitter.real(v.name))) for v in graph.inputs
    )
    emitter.name_nodes({emitter.real(n) for n in origin.originals} if origin else set())
    model.graph.node.extend(emitter.nodes)
    old_outputs = _infos(origin, "output")
    for name, value in outputs:
        model.graph.output.append(_info(value, name, varying, old_outputs.get(name), has_symbols(graph)))
    _describe(model, graph, emitter, varying)
    _say(model, graph, emitter)
    sizes = {d.name: int(d) for v in graph.inputs for d in v.shape[1:] if isinstance(d, Sym) and d.name.isidentifier()}
    if origin is None and sizes:  # to count at, when the file is read again
        model.metadata_props.add(key=CAPTURED, value=",".join(f"{name}={n}" for name, n in sizes.items()))
    return model, arrays


def _say(model: ModelProto, graph: Graph, e: Emitter) -> None:
    """Metadata that notes give of weights, under ``secateur.zeros.`` and the weight's name; older ones are replaced."""
    said = {
        f"{ZEROS}{e.real(name)}": text
        for note in graph.notes.values() if hasattr(note, "onnx_metadata") for name, text in note.onnx_metadata(graph)
    }  # fmt: skip
    old = [p for p in model.metadata_props if not p.key.startswith(ZEROS)]
    if said or len(old) != len(model.metadata_props):
        onnx.helper.set_model_props(model, {**{p.key: p.value for p in old}, **said})


def _version(graph: Graph) -> tuple[int, int]:
    """The operator set and the version of the format of a graph that was not read from a file."""
    bfloat16 = any(v.dtype == "bf16" for v in graph.values.values())
    return WITH_BFLOAT16 if bfloat16 else (OPSET, IR_VERSION)


def _header(graph: Graph, origin: OnnxOrigin | None) -> ModelProto:
    model = ModelProto()
    if origin is not None:
        model.ParseFromString(origin.header)
        model.ir_version = max(model.ir_version, OLDEST_IR)
        if not any(o.domain in ("", "ai.onnx") for o in model.opset_import):
            model.opset_import.append(onnx.helper.make_opsetid("", origin.opset))
        return model
    opset, model.ir_version = _version(graph)
    model.producer_name = "secateur"
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    model.graph.name = graph.name
    return model


def _infos(origin: OnnxOrigin | None, which: str) -> dict[str, ValueInfoProto]:
    if origin is None:
        return {}
    header = ModelProto.FromString(origin.header)
    return {i.name: i for i in (header.graph.input if which == "input" else header.graph.output)}


def _output_names(origin: OnnxOrigin | None) -> list[str]:
    """The outputs' names in the file, where one may stand twice."""
    return [] if origin is None else [o.name for o in ModelProto.FromString(origin.header).graph.output]


def _outputs(
    graph: Graph, e: Emitter, arrays: Mapping[str, Array], origin: OnnxOrigin | None
) -> list[tuple[str, Value]]:
    """Names and types of the outputs, those of the file where there is one.

    A file may name a constant, an input or one value twice; of other graphs those go through an Identity.
    """
    header = _output_names(origin)
    made: list[tuple[str, Value]] = []
    used: set[str] = set()
    for i, name in enumerate(graph.outputs):
        value, real = graph.value(name), e.real(name)
        wanted = header[i] if i < len(header) else real
        plain = real not in arrays and real not in used and name in graph.producer
        if wanted != real or (origin is None and not plain):
            e.label, e.current_outs = "", frozenset()
            target = wanted if wanted not in e.taken and wanted not in used else e.fresh(f"{real}_output")
            e.taken.add(target)
            real = e.add("Identity", [real], target)
        used.add(real)
        made.append((real, value))
    return made


def _info(
    value: Value,
    name: str,
    varying: Mapping[str, tuple[int, ...]],
    old: ValueInfoProto | None = None,
    is_output: bool = False,
) -> ValueInfoProto:
    """The type of a value; a dimension that may vary has a name or none, as the file had it.

    ``is_output``: the value leaves a graph with symbolic inputs, so a dimension that the file leaves open stays open.
    """
    info = ValueInfoProto()
    info.name = name
    info.type.tensor_type.elem_type = element_type(value.dtype)
    shape = info.type.tensor_type.shape
    shape.SetInParent()
    shape_now = varying.get(value.name, value.shape)
    dims = old.type.tensor_type.shape.dim if old is not None else []
    for i, d in enumerate(value.shape):
        dim = shape.dim.add()
        given = dims[i] if len(dims) == len(value.shape) else None
        if isinstance(d, Sym):
            text = given.dim_param if given is not None else d.name
            if text:
                dim.dim_param = text
        elif not isinstance(shape_now[i], Sym) and not (
            is_output and given is not None and not given.HasField("dim_value")
        ):
            dim.dim_value = d
        elif given is not None and given.dim_param:
            dim.dim_param = given.dim_param
    if old is not None and old.doc_string:
        info.doc_string = old.doc_string
    return info


def _describe(model: ModelProto, graph: Graph, e: Emitter, varying: Mapping[str, tuple[int, ...]]) -> None:
    """Record the shape of every value between inputs and outputs that is known for certain."""
    unsure = following(graph)
    ends = {i.name for i in (*model.graph.input, *model.graph.output)}
    for node in graph.nodes:
        for value in node.outputs:
            real = e.real(value.name)
            if real not in ends and value.name not in unsure:
                model.graph.value_info.append(_info(value, real, varying))


# -- files ----------------------------------------------------------------------------------------------------
def save(graph: Graph, path: str | Path) -> None:
    """Write the graph to an ONNX file: whole, or not at all.

    Weights beyond 2 GB go to a file next to it. Raises InputError where the file cannot be written.
    """
    write_all(jobs(graph, path))


def jobs(graph: Graph, path: str | Path) -> list[Job]:
    """What ``files.write_all`` has to write for the graph: the file, and one next to it where weights exceed 2 GB.

    Raises InputError where such a second file would have no place to be in, and Unsupported as ``to_onnx`` does.
    """
    target = Path(path)
    model, arrays = frame(graph)
    if sum(a.nbytes for a in arrays.values()) <= LARGEST:
        return [(target, lambda temporary: _write(temporary, model, arrays))]
    if is_special(target):
        raise InputError(f"cannot write '{target}': a model beyond 2 GB is two files; name a file to write it to")
    data = target.with_name(target.name + ".data")
    apart = _move_out(model, arrays, data.name)
    return [
        (data, lambda temporary: _write_apart(temporary, apart)),
        (target, lambda temporary: _write(temporary, model, {})),
    ]


def _write(path: Path, model: ModelProto, arrays: Mapping[str, Array]) -> None:
    with path.open("wb") as file:
        write_model(file, model, arrays)


def _move_out(model: ModelProto, arrays: Mapping[str, Array], name: str) -> list[Array]:
    """Let the model say where in the file ``name`` its weights are, small ones apart; these weights in their order."""
    apart: list[Array] = []
    offset = 0
    for weight, array in arrays.items():
        if array.nbytes < 1024 or not is_plain(array):
            model.graph.initializer.append(full_tensor(weight, array))
            continue
        tensor = tensor_head(weight, array)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", str(offset)), ("length", str(array.nbytes))):
            tensor.external_data.add(key=key, value=value)
        model.graph.initializer.append(tensor)
        apart.append(array)
        offset += array.nbytes
    return apart


def _write_apart(path: Path, arrays: Sequence[Array]) -> None:
    with path.open("wb") as file:
        for array in arrays:
            np.ascontiguousarray(array).tofile(file)
