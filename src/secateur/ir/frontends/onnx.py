"""ONNX in: ``load`` reads a file or ModelProto of any operator set from 7 on.

Dynamic axes become ``Sym`` dimensions. The model is converted at two choices of their sizes; what differs is spelled
so that it follows the input, and an axis for which that is impossible is fixed and reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx_graphsurgeon as gs
from onnx import ModelProto, NodeProto

from secateur.ir.errors import InputError, Unsupported
from secateur.ir.graph import Array, Graph, Node, Sym, Value, prune_dead
from secateur.ir.plain import printable
from secateur.ir.text import reinfer
from secateur.ir.verify import verify

from .onnx_builder import Branch, Builder, Misfit, Names, Op, defined
from .onnx_check import check
from .onnx_dims import Axis, dynamic_axes, input_values
from .onnx_fold import Room
from .onnx_merge import Disagree, changed_constants, merge
from .onnx_origin import OnnxOrigin, Original
from .onnx_process import OnnxProcess
from .onnx_read import captured, check_model, in_order, initialisers, opset_of, read_model
from .onnx_rules import RULES
from .onnx_shapes import Observer
from .onnx_weights import dense

__all__ = ["OnnxOrigin", "Original", "load"]

# Sizes tried for dynamic axes other than the batch, in this order; then the distance of the second probe.
SIZES = (224, 48, 64, 320, 640, 32, 512, 96, 128, 256, 16, 8, 576, 288, 1024, 299, 4, 1)
STEPS = (32, 64, 96, 224, 256, 320, 512, 16, 128, -16, -32, -64, 8, -8, 4, 1, -1)
FINITE = frozenset(
    {"conv", "conv_transpose", "linear", "batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm",
     "prelu", "lstm", "gru"}
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
            outputs=frozenset(self.names.clean(o.name) for o in self.model.graph.output),
            room=Room.beside(self.weights.values()),
        )  # fmt: skip
        builder.values.update((v.name, v) for v in inputs)
        for op in self.ops:
            builder.convert(op)
        return builder


def load(source: str | Path | ModelProto, process: OnnxProcess | None = None) -> Graph:
    """Read an ONNX model into the IR. Where it must be run to be understood, that is done in ``process``.

    Raises InputError for files that cannot be used and Unsupported for models outside what can be read, each with
    what is wrong, where, and what to do.
    """
    model, label, apart = read_model(source)
    check_model(model, label)
    check(model, label, apart)
    if model.functions:
        model = _inlined(model, label)
    parsed = _parse(model, label, apart, process or OnnxProcess())
    given = initialisers(model)
    infos = [i for i in model.graph.input if i.name not in given]
    axes = dynamic_axes(model, infos, parsed.names, label)
    converted = _convert(parsed, infos, axes)
    outputs = tuple(parsed.names.clean(o.name) for o in model.graph.output)
    name = re.sub(r"\s+", "_", printable(model.graph.name.strip())) or "model"
    graph = prune_dead(Graph(name, tuple(converted.inputs), tuple(converted.nodes), outputs, converted.builder.consts))
    graph = verify(reinfer(graph))
    _finite(graph, label)
    return graph.with_note(_origin(parsed, converted, graph))


def _parse(model: ModelProto, label: str, apart: Mapping[str, Array], process: OnnxProcess) -> Parsed:
    order = in_order(model, label)
    surgeon = _import(model, label)
    names = Names()
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
                within = names.within(attr.g)
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
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the inliner raises many types for functions that do not fit their calls
        raise InputError(f"{label}: its functions cannot be read ({error}); it is damaged: export it again") from error


def _import(model: ModelProto, label: str) -> gs.Graph:
    try:
        with gs.logger.G_LOGGER.suppress():
            return gs.import_onnx(model)
    except Exception as error:  # graphsurgeon raises many types for damaged files
        raise InputError(
            f"{label}: the file cannot be read ({type(error).__name__}: {error}); it is damaged: export it again"
        ) from error


@dataclass(frozen=True)
class Converted:
    """The outcome of converting at one size and comparing with others."""

    builder: Builder
    nodes: Sequence[Node]
    inputs: Sequence[Value]
    changed: frozenset[str] = frozenset()
    specialised: tuple[str, ...] = ()
    probe: Mapping[str, int] = field(default_factory=dict)


def _convert(parsed: Parsed, infos: Sequence[onnx.ValueInfoProto], axes: Sequence[Axis]) -> Converted:
    """Convert at one size, then again at others to learn what follows the input."""
    probe = Probe(parsed, infos, axes)
    base, sizes = probe.first()
    free = dict.fromkeys(a.name for a in axes)
    texts: list[str] = []
    while free:
        found = probe.second(base, sizes, list(free))
        if not isinstance(found, str):
            names = [n for o in base.originals.values() for n in o.inputs if isinstance(n, str)]
            inputs = input_values(infos, axes, {n: Sym(sizes[n], n) for n in free}, parsed.names, sizes)
            changed = frozenset(changed_constants(base, found.builder, names))
            texts += probe.branches(base, sizes, list(free))
            return Converted(base, found.nodes, inputs, changed, tuple(texts), found.sizes)
        alone = {n: probe.second(base, sizes, [n]) for n in free} if len(free) > 1 else {}
        culprits = {n: r for n, r in alone.items() if isinstance(r, str)} or {next(reversed(free)): found}
        for name, why in culprits.items():
            del free[name]
            axis = next(a for a in axes if a.name == name)
            texts.append(f"axis {axis.axis} of input '{axis.input}' ('{name}') is fixed at {sizes[name]}: {why}")
    return Converted(base, base.nodes, input_values(infos, axes, {}, parsed.names, sizes), specialised=tuple(texts))


@dataclass(frozen=True)
class Probe:
    """Converts one model at chosen sizes of its dynamic axes."""

    parsed: Parsed
    infos: Sequence[onnx.ValueInfoProto]
    axes: Sequence[Axis]

    def _build(self, sizes: Mapping[str, int]) -> Builder:
        return self.parsed.build(input_values(self.infos, self.axes, {}, self.parsed.names, sizes), sizes)

    def first(self) -> tuple[Builder, dict[str, int]]:
        """The first choice of sizes that the network accepts. Raises InputError where none is found."""
        failure, refusal = "", None
        fixed = all(a.batch for a in self.axes)
        lead = {a.name for a in self.axes if a.input == self.infos[0].name}
        for size, others in ((1, 1),) if fixed else ((s, o) for o in (None, 1) for s in SIZES):
            small = others is not None and not fixed  # second round: only the first input is large
            sizes = {a.name: 1 if a.batch or (small and a.name not in lead) else size for a in self.axes}
            try:
                return self._build(sizes), sizes
            except Misfit as error:
                failure = failure or str(error)
            except Unsupported as error:
                refusal, failure = error, failure or str(error)
        if refusal is not None and failure == str(refusal):
            raise refusal
        if fixed:
            raise InputError(failure)
        tried = ", ".join(map(str, SIZES))
        names = ", ".join(f"'{a.name}' (axis {a.axis} of '{a.input}')" for a in self.axes if not a.batch)
        raise InputError(
            f"{failure}. The sizes {names} are dynamic and none of {tried} fits: export the model with fixed sizes"
        )

    def second(self, base: Builder, sizes: Mapping[str, int], free: Sequence[str]) -> Second | str:
        """Convert with the ``free`` axes at other sizes and merge; the reason where that cannot be."""
        other = dict(sizes)
        ones = {n: 3 for n in free if sizes[n] == 1}
        if len(ones) > 1 and self._accepts({**sizes, **ones}):  # a batch that several inputs name differently
            other.update(ones)
        else:
            ones = {}
        for name in (n for n in free if n not in ones):
            found = self._elsewhere(sizes, name)
            if isinstance(found, str):
                return found
            other[name] = found
        syms = {n: Sym(sizes[n], n) for n in free}
        try:
            builder = self._build(other)
            return Second(builder, merge(base, builder, syms), other)
        except (Misfit, Unsupported, Disagree) as error:
            return str(error)

    def _accepts(self, sizes: Mapping[str, int]) -> bool:
        try:
            self._build(sizes)
        except (Misfit, Unsupported):
            return False
        return True

    def _elsewhere(self, sizes: Mapping[str, int], name: str) -> int | str:
        """Another size that the network accepts for this axis; the reason where there is none."""
        batch = any(a.batch and a.name == name for a in self.axes)
        reason = ""
        for step in (2, 1, 3) if batch else STEPS:
            if sizes[name] + step < 1:
                continue
            try:
                self._build({**sizes, name: sizes[name] + step})
                return sizes[name] + step
            except (Misfit, Unsupported) as error:
                reason = reason or str(error)
        return reason

    def branches(self, base: Builder, sizes: Mapping[str, int], free: Sequence[str]) -> list[str]:
        """What to tell about axes on whose size the choice of a branch depends."""
        texts = []
        for name in free if base.decided else ():
            for step in (512, 1024, 4096):
                try:
                    other = self._build({**sizes, name: sizes[name] + step})
                except (Misfit, Unsupported):
                    continue
                if other.decided != base.decided:
                    texts.append(
                        f"dynamic axis '{name}': an If of the file takes another branch at size "
                        f"{sizes[name] + step} than at {sizes[name]}; the branch of {sizes[name]} is kept, "
                        "so only such sizes can be used"
                    )
                    break
        return texts


@dataclass(frozen=True)
class Second:
    """A second conversion that agrees with the first: its state, the merged nodes and its sizes."""

    builder: Builder
    nodes: list[Node]
    sizes: Mapping[str, int]


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


def _origin(parsed: Parsed, converted: Converted, graph: Graph) -> OnnxOrigin:
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
        if known is not None and known.node.attrs == node.attrs and not converted.changed & set(known.inputs):
            originals[node.name] = known
    sides = {i for o in originals.values() for i in o.inputs if isinstance(i, str)}
    constants = {n: converted.builder.consts[n] for n in sides}
    names = {c: o for c, o in parsed.names.original.items() if c != o}
    return OnnxOrigin(
        header.SerializeToString(), parsed.opset, originals, constants, names, converted.specialised, converted.probe
    )
