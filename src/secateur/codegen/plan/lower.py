"""The plan of a whole graph: every node gets its kernels, every value its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from secateur.codegen.targets import Target
from secateur.ir import Error, Graph, Node, Unsupported, Value
from secateur.ir.graph import Attr

from .aliases import shuffles
from .backend import Backend
from .family import heads
from .fusion import ELEMENTWISE, Chain, chains
from .legalize import prepare
from .moves import moves_only
from .opaque import attributes, has_code
from .placement import SAME_ROWS, address
from .program import OUTPUT, Argument, Choose, Port, Program, TensorSpec
from .tensors import Blocked, Dense, Ints, join, select

ALIASED = SAME_ROWS | {"transpose"}


def lower(graph: Graph, target: Target, threads: int, choose: Choose | None, backend: Backend) -> Program:
    """The program of a graph; ``backend`` places values and has the kernels.

    ``choose`` says how kernels are tiled; None leaves it open, for ``Program.settle``.

    Raises Unsupported for an operator without code generation, Unplanned where planning fails at one that has code, and
    ValueError where no family of the backend computes an operator that fusion takes for element-wise.
    """
    with _planning("", None):
        prepared = prepare(graph)
    return Lowering(prepared, target, threads, choose, backend).run()


class Unplanned(Exception):
    """Planning a value failed, which is a fault of ours: whoever calls may have the runtime compute it.

    ``name``: the value, of the prepared graph. The text names its node and says what went wrong.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class NoCode(Unplanned):
    """A backend has no kernel for the node of this value: whoever calls may have the runtime compute it.

    ``why``: for people, where it has one for other nodes of the same operator.
    """

    def __init__(self, name: str, text: str, why: str = "") -> None:
        super().__init__(name, f"{text}: {why}" if why else text)
        self.why = why


@contextmanager
def _planning(name: str, node: Node | None) -> Iterator[None]:
    """Whatever goes wrong inside is Unplanned; sentences for people pass."""
    try:
        yield
    except (Error, Unplanned):
        raise
    except Exception as error:
        title = f"value '{name}'" if node is None else f"{node.op} {node.source}"
        raise Unplanned(name, f"{title} ({type(error).__name__}: {error})") from error


class Lowering:
    """Walks the graph once and writes a ``Program``."""

    def __init__(self, graph: Graph, target: Target, threads: int, choose: Choose | None, backend: Backend) -> None:
        self.graph, self.target, self.backend = graph, target, backend
        self.placement = backend.placement(graph, target, threads, choose)
        self.heads = heads(backend.families)
        if missing := sorted(ELEMENTWISE - set(self.heads)):
            raise ValueError(f"no kernel family computes {', '.join(missing)}: a row of heads is missing")
        self.nodes = {op: row for family in backend.families for op, row in family.nodes.items()}
        axes = self.placement.axes
        with _planning("", None):
            self.chains, self.aliases, self.shuffles = chains(axes), self.placement.aliases, shuffles(axes)

    def run(self) -> Program:
        """Plan all nodes that an output needs, then write the outputs."""
        needed = self._needed()
        for node in self.graph.nodes:
            for value in node.outputs:
                if value.name in needed:
                    with _planning(value.name, node):
                        self._value(node, value)
        self.write_outputs()
        return self.placement.program

    def _value(self, node: Node, value: Value) -> None:
        """Place one output of a node, and write the calls that compute it, unless they can wait."""
        placement, name = self.placement, value.name
        if name in self.chains:
            placement.blocked[name] = self._plan_chain(self.chains[name])
        elif name in self.aliases:
            self._alias(node, name)
        elif self._only_moves(node):
            placement.deferred[name] = node
        elif node.op in self.nodes and self.nodes[node.op].accepts(placement, node):
            if name not in placement.blocked:
                self.nodes[node.op].plan(placement, node)
        elif value is node.outputs[0] or not any(v.name in placement.dense for v in node.outputs):
            self.tensor_op(node)

    def _plan_chain(self, chain: Chain) -> Blocked:
        """The kernels of a head and its tail. What they write must be as large as the value: else readers go astray."""
        made = self.heads[chain.head.op].plan(self.placement, chain)
        extent, sizes = made.extent, self.placement.axes.nchw(chain.last.name)
        if (extent.n, made.width, extent.h, extent.w) != sizes:
            raise ValueError(f"{chain.head.op} is planned as {extent.n, made.width, extent.h, extent.w}, not {sizes}")
        return made

    def _needed(self) -> set[str]:
        needed = set(self.graph.outputs)
        for node in reversed(self.graph.nodes):
            for value in node.outputs:
                if value.name not in needed:
                    continue
                if value.name in self.chains:
                    chain = self.chains[value.name]
                    inside = {chain.head.name, *(n.name for n in chain.tail)}
                    sources = [i for n in (chain.head, *chain.tail) for i in n.inputs if i not in inside]
                elif value.name in self.aliases:
                    sources = list(self.aliases[value.name])
                else:
                    sources = list(node.inputs)
                needed.update(i for i in sources if i is not None)
        return needed

    def _only_moves(self, node: Node) -> bool:
        """A copy that is deferred until somebody reads its result, and then done in one with what follows it."""
        index = 1 if node.op == "gather" else len(node.inputs)
        floats = all(i is not None and self.graph.value(i).dtype == "f32" for i in node.inputs[:index])
        return floats and moves_only(node, self.graph.weights)

    def _alias(self, node: Node, name: str) -> None:
        """An alias: another list of the same blocks."""
        placement, sources = self.placement, self.aliases[name]
        if name in self.shuffles:
            x, groups = placement.get_blocked(sources[0]), self.shuffles[name][1]
            index = np.arange(x.width).reshape(groups, -1).T.reshape(-1)
            placement.blocked[name] = select(x, index)
        elif node.op in ALIASED:
            if sources[0] in placement.blocked:
                placement.blocked[name] = placement.blocked[sources[0]]
            else:
                placement.deferred[name] = node
        elif node.op == "concat":
            parts = [placement.get_blocked(s) for s in sources]
            if any(x.extent.pixels != parts[0].extent.pixels for x in parts):
                halo = placement.halos.get(name, 0)
                parts = [placement.relayout(x, halo, x.channels) for x in parts]
            placement.blocked[name] = join(parts)
        else:
            x = placement.get_blocked(sources[0])
            placement.blocked[name] = select(x, self._kept(node, name, x.width))

    def _kept(self, node: Node, name: str, width: int) -> Ints:
        a = node.attrs
        if node.op == "split":
            k = [v.name for v in node.outputs].index(name)
            start = sum(a["sizes"][:k])
            return np.arange(start, start + a["sizes"][k])
        if node.op == "gather":
            return np.asarray(self.graph.weights[node.inputs[1] or ""]).astype(np.int64) % width
        return np.arange(width)[slice(a["starts"][0], min(a["ends"][0], width), a["steps"][0])]

    def tensor_op(self, node: Node) -> None:
        """On row-major tensors by TVM's operator library: correct if slow, and listed."""
        if node.op == "opaque" and not has_code(self.graph, node):
            raise Unsupported(
                f"{node.source}: operator {node.attrs['target']} has no code generation; "
                "run this network in ONNX Runtime or torch, or replace the operator"
            )
        placement, program = self.placement, self.placement.program
        arguments: list[Argument] = []
        shapes: list[tuple[tuple[int, ...], str] | None] = []
        for name in node.inputs:
            if name is None:
                shapes.append(None)
                continue
            value = self.graph.value(name)
            shapes.append((tuple(map(int, value.shape)), value.dtype))
            if name in self.graph.weights:
                arguments.append(program.weight(self.graph.weights[name]))
            else:
                arguments.append(address(placement.get_dense(name)))
        outs = []
        for value in node.outputs:
            placement.dense[value.name] = out = placement.new_dense(value.name)
            arguments.append(address(out))
            outs.append((out.shape, out.dtype))
        attrs = tuple(sorted((k, _freeze(v)) for k, v in attributes(node).items()))
        op = str(node.attrs["target"]) if node.op == "opaque" else node.op
        program.by_library.append(f"{op} {node.label}")
        self._by_library(TensorSpec(op, attrs, tuple(shapes), tuple(outs)), arguments, node.outputs[0].name, node.label)

    def write_outputs(self) -> None:
        """Copy or convert each output to the caller's memory."""
        for i, name in enumerate(self.graph.outputs):
            with _planning(name, self.graph.producer.get(name)):
                self._output(name, f"{OUTPUT}{i}")

    def _output(self, name: str, port: str) -> None:
        placement, value = self.placement, self.graph.value(name)
        shape = tuple(map(int, value.shape))
        if name in placement.blocked or (name in placement.deferred and name not in placement.dense):
            placement.unpack(name, Dense(shape, value.dtype, port=port))
            return
        source: Argument
        if name in self.graph.weights:
            source = placement.program.weight(self.graph.weights[name])
        else:
            source = address(placement.get_dense(name))
        one = ((shape, value.dtype),)
        self._by_library(TensorSpec("identity", (), one, one), [source, Port(port)], name, f"output {name}")

    def _by_library(self, spec: TensorSpec, arguments: list[Argument], name: str, label: str) -> None:
        """A call of TVM's operator library, where the backend has it."""
        if not self.backend.by_library(spec):
            raise NoCode(name, f"{spec.op} '{label}' has no code for {self.target.name}")
        self.placement.program.call(spec, None, arguments, label)


def _freeze(value: Attr) -> Attr:
    return tuple(map(_freeze, value)) if isinstance(value, (list, tuple)) else value
