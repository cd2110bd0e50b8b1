"""Reading an ONNX file: from a path to a ModelProto that can be trusted, or one clear error."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from secateur.ir.errors import InputError, Unsupported
from secateur.ir.graph import Array

from .check_tensors import Damage, check_external
from .weights import read_apart

CHECKPOINTS = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pt2"})
CHECKPOINT = (
    "a PyTorch checkpoint and not an ONNX file: use secateur.compile(model, example_inputs=...) in Python, with the "
    "module that its weights belong to"
)
NOT_ONNX = "not a readable ONNX file ({}); it may be truncated or of another kind: export or download it again"
OLDEST_OPSET = 7
DEFAULT_DOMAINS = ("", "ai.onnx")


def read_model(source: str | Path | ModelProto) -> tuple[ModelProto, str, dict[str, Array]]:
    """The model with its external data, what to call it in messages, and weights whose data were left out of it.

    Raises InputError.
    """
    if isinstance(source, ModelProto):
        return source, f"model '{source.graph.name}'", {}
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{path} is a directory; name the .onnx file inside it")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    try:
        model, apart = read_apart(path) or (onnx.load(str(path), load_external_data=False), {})
    except DecodeError as error:
        raise InputError(f"{path} is {_instead(path) or NOT_ONNX.format(error)}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    _load_external(model, path)
    return model, str(path), apart


def _instead(path: Path) -> str:
    """What a file that is not ONNX is, and what to do with it; nothing where its first bytes do not say."""
    with path.open("rb") as file:
        head = file.read(4)
    pickled = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if pickled or (head == b"PK\x03\x04" and path.suffix.lower() in CHECKPOINTS):
        return CHECKPOINT
    return ""


def _load_external(model: ModelProto, path: Path) -> None:
    try:
        for tensor in tensors_of(model):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                check_external(tensor, path.parent, f"weight '{tensor.name}'")
    except Damage as fault:
        raise InputError(f"{path}: {fault}, or export the model again") from None
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (ValueError, OSError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"{path}: external data cannot be read ({error}); it may be truncated: copy or export it again"
        ) from error


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Every dense tensor of the model: weights and attributes, in graphs inside nodes and in functions too."""
    graphs, nodes = [model.graph], [n for f in model.functions for n in f.node]
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        nodes += graph.node
        while nodes:
            for attr in nodes.pop().attribute:
                yield from (attr.t, *attr.tensors)
                graphs += (attr.g, *attr.graphs) if attr.type in (attr.GRAPH, attr.GRAPHS) else ()


def opset_of(model: ModelProto) -> int:
    """The version of the default operator set; 1 where the file names none."""
    return next((o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS), 1)


def check_model(model: ModelProto, label: str) -> None:
    """Refuse what can never be read: no graph, an old operator set, a newer one than is known."""
    if not model.graph.node and not model.graph.output:
        raise InputError(f"{label} holds no graph: it is empty or not an ONNX model; export it again")
    if not model.graph.node:
        raise InputError(f"{label} has no nodes, so there is nothing to prune; export it again")
    if not model.graph.output:
        raise InputError(f"{label} has no outputs, so nothing in it is computed for anybody; export it again")
    opset, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if opset < OLDEST_OPSET:
        raise Unsupported(
            f"{label} uses operator set {opset}; the oldest supported is {OLDEST_OPSET}: "
            "convert it with onnx.version_converter or export it again"
        )
    if opset > newest:
        raise Unsupported(
            f"{label} uses operator set {opset}; the installed onnx package knows up to {newest}: "
            "upgrade onnx or export the model with an older operator set"
        )


def initialisers(model: ModelProto) -> set[str]:
    """Names that have data in the file; old files list them among the inputs too."""
    dense = {t.name for t in model.graph.initializer}
    return dense | {t.values.name for t in model.graph.sparse_initializer}


def captured(node: NodeProto) -> list[str]:
    """Names of outer values that the node's subgraphs read, in order of first use."""
    names: dict[str, None] = {}
    for attr in node.attribute:
        for graph in (attr.g, *attr.graphs) if attr.type in (attr.GRAPH, attr.GRAPHS) else ():
            names.update(dict.fromkeys(_free_names(graph)))
    return [n for n in names if n not in node.input]


def _free_names(graph: GraphProto) -> list[str]:
    defined = {i.name for i in graph.input} | {i.name for i in graph.initializer}
    defined |= {i.values.name for i in graph.sparse_initializer}
    free: dict[str, None] = {}
    for node in graph.node:
        for name in (*node.input, *captured(node)):
            if name and name not in defined:
                free[name] = None
        defined.update(node.output)
    free.update((o.name, None) for o in graph.output if o.name not in defined)
    return list(free)


def in_order(model: ModelProto, label: str) -> list[int]:
    """Positions of the nodes in an order where definitions come before uses. Raises InputError on a cycle."""
    nodes = model.graph.node
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    known = {i.name for i in model.graph.input} | initialisers(model)
    needs: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        needs[i] = []
        for name in (*node.input, *captured(node)):
            if name in maker:
                needs[i].append(maker[name])
            elif name and name not in known:
                raise InputError(
                    f"{label}: {node.op_type} '{node.name or node.output[0]}' reads '{name}', which nothing defines; "
                    "the file is damaged: export it again"
                )
    if all(j < i for i, js in needs.items() for j in js):
        return list(range(len(nodes)))
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        cycle = error.args[1]
        names = " -> ".join(f"'{nodes[i].name or nodes[i].output[0]}'" for i in reversed(cycle[:8]))
        raise InputError(f"{label}: the graph is cyclic ({names}); no runtime can run it: export it again") from error
