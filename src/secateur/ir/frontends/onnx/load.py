"""ONNX in: ``load`` reads a file or ModelProto of any operator set from 7 on.

Dynamic axes become ``Sym`` dimensions. What follows them says how (``ir.symbolic``); the model is converted at several
sizes to make sure, and an axis for which that is impossible is fixed and reported (``onnx_probe``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx_graphsurgeon as gs
from onnx import ModelProto, NodeProto

from secateur.ir.errors import InputError, Unsupported
from secateur.ir.graph import Array, Graph, Sym, Value, prune_dead
from secateur.ir.onnx_origin import OnnxOrigin, Original
from secateur.ir.plain import printable
from secateur.ir.text import reinfer
from secateur.ir.verify import verify

from .builder import Builder
from .check import check
from .dims import chosen_sizes, dynamic_axes, recorded_sizes
from .fold import Room
from .names import Branch, Misfit, Names, Op, defined, repeated
from .probe import Converted, Prober, guessed
from .process import OnnxProcess
from .read import captured, check_model, in_order, initialisers, opset_of, read_model
from .rules import RULES
from .shapes import Observer
from .weights import dense

__all__ = ["OnnxOrigin", "Original", "load"]

FINITE = frozenset(
    {"conv", "conv_transpose", "linear", "batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm",
     "prelu", "lstm", "gru", "rnn"}
)  # fmt: skip


@dataclass(frozen=True)
class Parsed:
    """The model with its parts in Python's hands, before any size is chosen."""

    label: str
    model: ModelProto
    opset: int
    ops: tuple[Op, ...]
    weights: Mapping[str, Array]
    names: Names
    used: Mapping[str, int]
    apart: Mapping[str, Array]  # data that the model itself lacks, by the names in the file
    process: OnnxProcess

    def build(self, inputs: Sequence[Value], sizes: Mapping[str, int]) -> Builder:
        """Convert at these input shapes. Raises InputError, Unsupported, or Misfit with the node in it."""
        raw = {self.names.original[v.name]: v for v in inputs}
        builder = Builder(
            self.label, self.opset, self.model, self.names, RULES, dict(self.weights),
            Observer(self.model, raw, sizes, self.apart, self.process), used=self.used,
            outputs=frozenset(self.names.clean(o.name) for o in self.model.graph.output), sizes=sizes,
            room=Room.beside(self.weights.values()),
            sources={d.name: (v.name, i) for v in inputs for i, d in enumerate(v.shape) if isinstance(d, Sym)},
        )  # fmt: skip
        builder.values.update((v.name, v) for v in inputs)
        for op in self.ops:
            builder.convert(op)
        for output in self.model.graph.output:
            builder.read(self.names.clean(output.name))
        self._check_sizes(builder)
        return builder

    def _check_sizes(self, builder: Builder) -> None:
        """Raise Misfit where the outputs need a tensor without data that no Concat left out."""
        needed = set(builder.outputs)
        for node in reversed(builder.nodes):
            if not any(v.name in needed for v in node.outputs):
                continue
            needed.update(i for i in node.inputs if i is not None)
            empty = next((v for v in node.outputs if 0 in v.shape), None)
            if empty is not None and node.op != "opaque":
                raise Misfit(
                    f"{self.label}: {node.op} '{node.label}' makes a tensor of size zero, {empty}, which the outputs "
                    "need; export the model without it"
                )


def load(
    source: str | Path | ModelProto,
    process: OnnxProcess | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Graph:
    """Read an ONNX model into the IR. Where it must be run to be understood, that is done in ``process``.

    ``shapes``: shapes of inputs, by name, at which dynamic axes are counted and timed; they stay dynamic where what
    follows them can be told. Others are taken as the metadata of the file say, else as 1 along the batch and 224
    elsewhere, or what else fits.
    Raises InputError for files that cannot be used and Unsupported for models outside what can be read, each with
    what is wrong, where, and what to do.
    """
    with gs.logger.G_LOGGER.suppress():  # it warns of types that are kept as they are
        return _load(source, process or OnnxProcess(), shapes or {})


def _load(source: str | Path | ModelProto, process: OnnxProcess, shapes: Mapping[str, Sequence[int]]) -> Graph:
    model, label, apart = read_model(source)
    check_model(model, label)
    check(model, label, apart)
    if model.functions:
        model = _inlined(model, label)
    parsed = _parse(model, label, apart, process)
    given = initialisers(model)
    infos = [i for i in model.graph.input if i.name not in given]
    axes = dynamic_axes(model, infos, parsed.names, label)
    sizes = recorded_sizes(model, axes) | chosen_sizes(infos, axes, shapes, label)
    converted = Prober(parsed, infos, axes, sizes).convert()
    outputs = tuple(parsed.names.clean(o.name) for o in model.graph.output)
    name = re.sub(r"\s+", "_", printable(model.graph.name.strip())) or "model"
    graph = prune_dead(Graph(name, tuple(converted.inputs), tuple(converted.nodes), outputs, converted.builder.consts))
    graph = verify(reinfer(graph))
    _finite(graph, label)
    taken = {d.name: int(d) for v in graph.inputs for d in v.shape if isinstance(d, Sym)}
    return graph.with_note(_origin(parsed, converted, graph, guessed(axes, taken, sizes)))


def _parse(model: ModelProto, label: str, apart: Mapping[str, Array], process: OnnxProcess) -> Parsed:
    order = in_order(model, label)
    surgeon = _import(model, label)
    names = Names(repeated=repeated(model.graph))
    for name in defined(model.graph):  # before any branch, whose own names must differ
        names.clean(name)
    ops, used = _ops(model.graph.node, surgeon, order, names, opset_of(model))
    known = surgeon.tensors()
    weights: dict[str, Array] = {}
    wanted = {*used, *(names.clean(o.name) for o in model.graph.output)}
    for tensor in model.graph.initializer:
        if names.clean(tensor.name) in wanted:
            found = known.get(tensor.name)
            if tensor.name in apart:
                weights[names.clean(tensor.name)] = apart[tensor.name]
                continue
            array = found.values if isinstance(found, gs.Constant) else onnx.numpy_helper.to_array(tensor)
            weights[names.clean(tensor.name)] = np.asarray(array)
    for sparse in model.graph.sparse_initializer:
        weights[names.clean(sparse.values.name)] = _dense(sparse, label)
    return Parsed(label, model, opset_of(model), ops, weights, names, used, apart, process)


def _dense(sparse: onnx.SparseTensorProto, label: str) -> Array:
    try:
        return dense(sparse)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{label}: the sparse weight '{sparse.values.name}' does not fit its shape ({error}); the file is damaged: "
            "export it again"
        ) from error


def _ops(
    protos: Sequence[NodeProto], surgeon: gs.Graph, order: Sequence[int], names: Names, opset: int
) -> tuple[tuple[Op, ...], dict[str, int]]:
    """The nodes of a graph or branch in order, and how often each name is read."""
    ops: list[Op] = []
    used: dict[str, int] = {}
    for i in order:
        proto, attrs = protos[i], dict(surgeon.nodes[i].attrs)
        inputs = tuple(names.clean(n) if n else None for n in proto.input)
        outputs = tuple(names.clean(n) if n else None for n in proto.output)
        outer = tuple(names.clean(n) for n in captured(proto))
        for n in (*inputs, *outer):
            if n is not None:
                used[n] = used.get(n, 0) + 1
        for attr in proto.attribute:
            if proto.op_type == "If" and attr.name in ("then_branch", "else_branch"):
                branch, inner = attrs[attr.name], range(len(attr.g.node))
                within = names.within(attr.g, f"{proto.name or proto.output[0]}/{attr.name}")
                body, reads = _ops(attr.g.node, branch, inner, within, opset)
                results = tuple(within.clean(o.name) for o in attr.g.output)
                own = {within.clean(t.name): onnx.numpy_helper.to_array(t) for t in attr.g.initializer}
                own |= {within.clean(t.values.name): dense(t) for t in attr.g.sparse_initializer}
                attrs[attr.name] = Branch(body, own, results)
                for n in results:
                    reads[n] = reads.get(n, 0) + 1
                for n, count in reads.items():
                    used[n] = used.get(n, 0) + count
        ops.append(Op(proto, inputs, outputs, attrs, opset, outer))
    return tuple(ops), used


def _inlined(model: ModelProto, label: str) -> ModelProto:
    """The model without its own functions. Raises InputError and Unsupported where they cannot be put in place."""
    try:
        inlined = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the inliner raises many types for functions that do not fit their calls
        raise InputError(f"{label}: its functions cannot be read ({error}); it is damaged: export it again") from error
    named = {(f.domain, f.name) for f in model.functions}
    call = next((n for n in inlined.graph.node if (n.domain, n.op_type) in named), None)
    if call is None:
        return inlined
    try:  # it is written for another opset than the graph
        return onnx.inliner.inline_local_functions(model, convert_version=True)
    except Exception as error:
        raise Unsupported(
            f"{label}: function {call.domain}::{call.op_type} is written for another opset than the graph, and cannot "
            "be converted; export the model with one opset, or call onnx.version_converter on it first"
        ) from error


def _import(model: ModelProto, label: str) -> gs.Graph:
    try:
        return gs.import_onnx(model)
    except Exception as error:  # graphsurgeon raises many types for damaged files
        raise InputError(
            f"{label}: the file cannot be read ({type(error).__name__}: {error}); it is damaged: export it again"
        ) from error


def _finite(graph: Graph, label: str) -> None:
    """Refuse weights that are not numbers; minus infinity is fine in a mask, not in a layer."""
    layers = {i: n for n in graph.nodes if n.op in FINITE for i in n.inputs if i in graph.weights}
    for name, array in graph.weights.items():
        if not array.size or array.dtype.kind != "f":
            continue
        low, high = array.min(), array.max()  # no temporary as large as the weight
        if np.isnan(low) or (name in layers and not (np.isfinite(low) and np.isfinite(high))):
            what = "NaN" if np.isnan(low) else "infinite values"
            where = f" of '{layers[name].label}'" if name in layers else ""
            raise InputError(
                f"{label}: weight '{name}'{where} holds {what}, so the network computes nothing useful: "
                "train or export it again"
            )


def _origin(parsed: Parsed, converted: Converted, graph: Graph, told: tuple[str, ...]) -> OnnxOrigin:
    header = ModelProto()
    source = parsed.model
    header.ir_version = source.ir_version
    for key in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        if getattr(source, key):
            setattr(header, key, getattr(source, key))
    header.opset_import.extend(source.opset_import)
    header.metadata_props.extend(source.metadata_props)
    header.graph.name, header.graph.doc_string = source.graph.name, source.graph.doc_string
    given = initialisers(source)
    header.graph.input.extend(i for i in source.graph.input if i.name not in given)
    header.graph.output.extend(source.graph.output)
    originals: dict[str, Original] = {}
    for node in graph.nodes:
        known = converted.builder.originals.get(node.name)
        if known is not None and known.node.attrs == node.attrs:
            originals[node.name] = dataclasses.replace(known, node=node)
    sides = {i for o in originals.values() for i in o.inputs if isinstance(i, str)}
    constants = {n: converted.builder.consts[n] for n in sides}
    names = {c: o for c, o in parsed.names.original.items() if c != o}
    return OnnxOrigin(
        header.SerializeToString(),
        parsed.opset,
        originals,
        constants,
        names,
        converted.specialised,
        told,
        converted.probes,
        converted.builder.parts,
    )
