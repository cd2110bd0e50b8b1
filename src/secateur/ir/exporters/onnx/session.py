"""Running a graph in ONNX Runtime without copies of its weights: the user's runtime, and no other to import."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper

from secateur.ir.errors import InputError, Unsupported
from secateur.ir.graph import Array, Graph
from secateur.ir.onnx_origin import OnnxOrigin

from .emitter import element_type
from .stream import full_tensor
from .write import frame

SMALL = 1 << 14  # bytes up to which a weight goes into the session's model


class Session:
    """One graph, ready to run. Large weights are fed as inputs, so the session shares the graph's memory.

    Raises Unsupported where ONNX Runtime cannot run the graph, with the operators of domains that it may not know.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        model, arrays = frame(graph)
        self._weights: dict[str, Array] = {}
        self._names = [info.name for info in model.graph.input]  # as the file spells them, in the graph's order
        self._settle(model, arrays)
        _sharpen(model, graph)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.disable_prepacking", "1")  # packed weights are one more copy
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's types share no base of their own
            raise Unsupported(_refusal(graph, error)) from error

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs in order, for inputs by name. Raises InputError where they do not fit."""
        names = [v.name for v in self.graph.inputs]
        if set(names) != set(inputs):
            raise InputError(f"network '{self.graph.name}' takes the inputs {names}, given: {sorted(inputs)}")
        feed = {file: np.asarray(inputs[name]) for file, name in zip(self._names, names, strict=True)}
        try:
            found = self._session.run(None, feed | self._weights)
        except Exception as error:
            shapes = ", ".join(f"{name} {np.asarray(inputs[name]).dtype}{inputs[name].shape}" for name in names)
            raise InputError(
                f"network '{self.graph.name}' cannot be run in ONNX Runtime on {shapes}: {_first_line(error)}"
            ) from error
        return [np.asarray(array) for array in found]

    def _settle(self, model: ModelProto, arrays: Mapping[str, Array]) -> None:
        """Put small weights and those that an operator may want as constants into the model; feed the others."""
        inside = {i for node in self.graph.nodes if node.op == "opaque" for i in node.inputs if i is not None}
        spelled = self.graph.note(OnnxOrigin)
        names = spelled.names if spelled is not None else {}
        kept = {names.get(i, i) for i in inside}
        for name, array in arrays.items():
            if name in kept or array.nbytes <= SMALL or array.dtype.kind != "f":
                model.graph.initializer.append(full_tensor(name, array))
                continue
            info = model.graph.input.add(name=name)
            info.type.tensor_type.elem_type = element_type(array.dtype.name.replace("float", "f"))
            for size in array.shape:
                info.type.tensor_type.shape.dim.add(dim_value=size)
            self._weights[name] = np.ascontiguousarray(array)


def _sharpen(model: ModelProto, graph: Graph) -> None:
    """Compute sigmoids in double precision, unless they are mere gates.

    ONNX Runtime's own is exact to 1e-7 of its range, not of its result: a probability of 1e-4 may be off by 1e-3 of
    itself, which would look like a wrong network.
    """
    single = {v.name for v in graph.values.values() if v.dtype == "f32"}
    spelled = graph.note(OnnxOrigin)
    if spelled is not None:
        single |= {spelled.names.get(name, name) for name in single}
    gates = {i for n in model.graph.node if n.op_type == "Mul" for i in n.input}
    gates -= {o.name for o in model.graph.output}
    gates -= {i for n in model.graph.node if n.op_type != "Mul" for i in n.input}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Sigmoid" or node.output[0] in gates or node.output[0] not in single:
            nodes.append(node)
            continue
        result, wide, exact = node.output[0], f"{node.output[0]}.wide", f"{node.output[0]}.exact"
        nodes += [
            helper.make_node("Cast", node.input, [wide], to=TensorProto.DOUBLE),
            helper.make_node("Sigmoid", [wide], [exact]),
            helper.make_node("Cast", [exact], [result], to=TensorProto.FLOAT),
        ]
    if len(nodes) != len(model.graph.node):
        copied = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copied)


def _refusal(graph: Graph, error: Exception) -> str:
    foreign = [n for n in graph.nodes if n.op == "opaque" and not n.attrs["target"].startswith("ai.onnx::")]
    reason = _first_line(error)
    if not foreign:
        return f"network '{graph.name}' cannot be run in ONNX Runtime: {reason}"
    named = ", ".join(dict.fromkeys(f"{n.attrs['target']} '{n.label}'" for n in foreign[:5]))
    return (
        f"network '{graph.name}' cannot be run in ONNX Runtime, so nothing can be verified: it has {named}, and the "
        f"runtime says: {reason}. Replace that operator by ones of ONNX itself, or compile with verify=False"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
