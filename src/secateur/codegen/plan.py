"""The layout plan: every node gets its kernels, every value its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.ir import Graph, Node, Unsupported
from secateur.ir.graph import numpy_dtype

from .fusion import Chain, blockable, chains, is_vector, margins, moves, picture, shuffles
from .packing import block_weight, flatten, groups_of, pack
from .program import Argument, Port, Program, Table, TensorSpec, Weight
from .specs import ConvChoice, ConvSpec, CopySpec, FillSpec, MapSpec, MeanSpec, Step, Strides, WindowSpec
from .targets import Target
from .tensors import Blocked, Buffer, Ints, Place, Plain, Plane, join, natural_channels, select

Choose = Callable[[Any], Any]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Epilogue:
    """Steps, and the arguments they add to the call for a run of output blocks."""

    steps: tuple[Step, ...]
    operands: tuple[tuple[Weight | Blocked, ...], ...]


class Planner:
    """Walks the graph once and writes a ``Program``."""

    def __init__(self, graph: Graph, target: Target, threads: int, choose: Choose) -> None:
        self.graph, self.target, self.threads, self.choose = graph, target, threads, choose
        self.lanes = target.lanes
        self.program = Program()
        self.start = Buffer(0, 0, 0, 0)  # the beginning of the arena: what tables count from
        self.chains, self.moves, self.shuffles = chains(graph), moves(graph), shuffles(graph)
        self.margins = margins(graph, self.moves)
        self.blocked: dict[str, Blocked] = {}
        self.plain: dict[str, Plain] = {}
        for value in graph.inputs:
            self.plain[value.name] = Plain(value.shape, value.dtype, port=value.name)

    # --- the walk ---------------------------------------------------------------------------------------------------

    def run(self) -> Program:
        """Plan all nodes, then write the outputs and place the buffers."""
        needed = self._needed()
        for node in self.graph.nodes:
            for value in node.outputs:
                if value.name not in needed:
                    continue
                if value.name in self.chains:
                    self.chain(self.chains[value.name])
                elif value.name in self.moves:
                    self.move(node, value.name)
                elif value is node.outputs[0] or not any(v.name in self.plain for v in node.outputs):
                    self.tensor_op(node)
        self.write_outputs()
        return self.program

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
                elif value.name in self.moves:
                    sources = list(self.moves[value.name])
                else:
                    sources = list(node.inputs)
                needed.update(i for i in sources if i is not None)
        return needed

    # --- memory -----------------------------------------------------------------------------------------------------

    def new_blocked(self, name: str, channels: Ints | None = None) -> Blocked:
        """Blocks for a value, margins as its readers need them; its margin is zeroed by a call."""
        shape = picture(self.graph.value(name).shape)
        assert shape is not None
        n, c, h, w = shape
        plane = Plane(int(n), int(h), int(w), self.margins.get(name, 0), self.lanes)
        channels = natural_channels(c, self.lanes) if channels is None else channels
        return self._blocks(plane, channels)

    def _blocks(self, plane: Plane, channels: Ints) -> Blocked:
        count = len(channels) // plane.lanes
        buffer = self.program.arena.new(count * plane.block)
        if plane.margin:
            fill = FillSpec(plane.lanes, plane.n, count, plane.h, plane.w, plane.margin)
            self.program.call(fill, None, [Place(buffer)], "margin")
        return Blocked(plane, tuple((buffer, i) for i in range(count)), channels)

    def get_blocked(self, name: str) -> Blocked:
        """The value in blocks, converted if it lies row by row."""
        if name not in self.blocked:
            source, out = self.plain[name], self.new_blocked(name)
            shape = picture(source.shape)
            assert shape is not None
            n, c, h, w = shape
            x = Strides(0, c * h * w, w, 1)
            entries = tuple(int(ch) * h * w if ch >= 0 else -1 for ch in out.channels)
            y = [self._lane(out, lane) for lane in range(len(out.channels))]
            self.program.call(
                CopySpec(len(out.channels), n, h, w, x, _strides(out.plane), "channels"), None,
                [self._address(source), Table(entries), _relative(y), y[0]], f"to blocks {name}",
            )  # fmt: skip
            self.blocked[name] = out
        return self.blocked[name]

    def get_planar(self, name: str) -> Blocked:
        """A value with few channels, one a block of one lane: read as it lies, or copied where a margin is needed."""
        source, margin = self.plain[name], self.margins.get(name, 0)
        n, c, h, w = (int(d) for d in source.shape)
        out = self._blocks(Plane(n, h, w, margin, 1), np.arange(c, dtype=np.int64))
        y = [out.offset(i) for i in range(c)]
        self.program.call(
            CopySpec(c, n, h, w, Strides(0, c * h * w, w, 1), _strides(out.plane), "pixels"), None,
            [self._address(source), Table(tuple(i * h * w for i in range(c))), _relative(y), y[0]], f"pad {name}",
        )  # fmt: skip
        return out

    def get_plain(self, name: str) -> Plain:
        """The value row by row, converted if it lies in blocks."""
        if name not in self.plain:
            value = self.graph.value(name)
            shape = tuple(map(int, value.shape))
            out = Plain(shape, value.dtype, self._words(shape, value.dtype))
            self._unpack(name, out)
            self.plain[name] = out
        return self.plain[name]

    def _unpack(self, name: str, out: Plain) -> None:
        x, shape = self.blocked[name], picture(out.shape)
        assert shape is not None
        n, c, h, w = (int(d) for d in shape)
        entries = tuple(x.offset(int(p)) for p in x.places())
        y = Strides(0, c * h * w, w, 1)
        order = "pixels" if h * w > 1 else "channels"
        self.program.call(
            CopySpec(c, n, h, w, _strides(x.plane), y, order), None,
            [self._start(), Table(entries), Table(tuple(i * h * w for i in range(c))), self._address(out)],
            f"from blocks {name}",
        )  # fmt: skip

    def relayout(self, x: Blocked, margin: int, channels: Ints) -> Blocked:
        """The same tensor with its channels in other lanes."""
        out = self._blocks(replace(x.plane, margin=margin), channels)
        places = x.places()
        entries = tuple(x.offset(int(places[c])) if c >= 0 else -1 for c in channels)
        y = [self._lane(out, lane) for lane in range(len(channels))]
        self.program.call(
            CopySpec(len(channels), x.plane.n, x.plane.h, x.plane.w, _strides(x.plane), _strides(out.plane),
                     "channels"), None, [self._start(), Table(entries), _relative(y), y[0]], "relayout",
        )  # fmt: skip
        return out

    def _lane(self, x: Blocked, lane: int) -> Place:
        return x.offset(lane)

    def _start(self) -> Place:
        return Place(self.start)

    def _words(self, shape: Sequence[int], dtype: str) -> Buffer:
        return self.program.arena.new(max(1, -(-math.prod(shape) * numpy_dtype(dtype).itemsize // 4)))

    def _address(self, x: Plain) -> Argument:
        if x.port is not None:
            return Port(x.port)
        assert x.buffer is not None
        return Place(x.buffer)

    # --- movement without a copy ------------------------------------------------------------------------------------

    def move(self, node: Node, name: str) -> None:
        """Another list of the same blocks; row by row where all inputs lie so."""
        sources = self.moves[name]
        if (
            node.op in {"reshape", "flatten", "squeeze", "unsqueeze", "identity", "dropout"}
            and name not in self.shuffles
        ):
            if sources[0] not in self.blocked:
                rows = self.plain[sources[0]]
                self.plain[name] = Plain(self.graph.value(name).shape, rows.dtype, rows.buffer, rows.port)
                return
            self.blocked[name] = self.blocked[sources[0]]
            return
        if name in self.shuffles:
            x, groups = self.get_blocked(sources[0]), self.shuffles[name][1]
            index = np.arange(x.width).reshape(groups, -1).T.reshape(-1)
            self.blocked[name] = select(x, index)
        elif node.op == "concat":
            self.blocked[name] = join([self.get_blocked(s) for s in sources])
        else:
            x = self.get_blocked(sources[0])
            self.blocked[name] = select(x, self._kept(node, name, x.width))

    def _kept(self, node: Node, name: str, width: int) -> Ints:
        a = node.attrs
        if node.op == "split":
            k = [v.name for v in node.outputs].index(name)
            start = sum(a["sizes"][:k])
            return np.arange(start, start + a["sizes"][k])
        if node.op == "gather":
            return np.asarray(self.graph.weights[node.inputs[1] or ""]).astype(np.int64) % width
        return np.arange(width)[slice(a["starts"][0], min(a["ends"][0], width), a["steps"][0])]

    # --- kernels ----------------------------------------------------------------------------------------------------

    def chain(self, chain: Chain) -> None:
        """One kernel for a head and its tail."""
        op, name = chain.head.op, chain.last.name
        if op == "conv":
            self.blocked[name] = self.conv(chain)
        elif op == "linear":
            self.blocked[name] = self.linear(chain)
        elif op in {"max_pool", "avg_pool", "adaptive_avg_pool"}:
            self.blocked[name] = self.pool(chain)
        elif op.startswith("reduce_"):
            self.blocked[name] = self.mean(chain)
        else:
            self.blocked[name] = self.elementwise(chain)

    def epilogue(self, tail: Sequence[tuple[Node, str | None]], out: Blocked) -> Epilogue:
        """Steps for the nodes of a tail; each comes with the name of the value that flows through it."""
        steps: list[Step] = []
        operands: list[tuple[Weight | Blocked, ...]] = []
        for node, flow in tail:
            for step, operand in self._steps(node, flow, out):
                steps.append(step)
                operands.append(operand)
        return Epilogue(tuple(steps), tuple(operands))

    def _steps(self, node: Node, flow: str | None, out: Blocked) -> list[tuple[Step, tuple[Weight | Blocked, ...]]]:
        if node.op == "batch_norm":
            scale, shift = self._affine(node)
            return [
                (Step(op, operand="const"), (self._per_lane(v, out),)) for op, v in (("mul", scale), ("add", shift))
            ]
        if node.op == "prelu":
            return [(Step("prelu", operand="const"), (self._per_lane(self.graph.weights[node.inputs[1] or ""], out),))]
        if len(node.inputs) == 1:
            return [(Step(node.op, tuple(sorted(node.attrs.items()))), ())]
        which = node.inputs.index(flow)
        other = node.inputs[1 - which]
        assert other is not None
        swapped = which == 1
        if other in self.graph.weights:
            return [
                (Step(node.op, operand="const", swapped=swapped), (self._per_lane(self.graph.weights[other], out),))
            ]
        x = self.get_blocked(other)
        kind = "vector" if is_vector(self.graph, other, node.out.shape) else "full"
        if not np.array_equal(x.channels, out.channels):
            x = self.relayout(x, x.plane.margin if kind == "full" else 0, out.channels)
        step = Step(node.op, operand=kind, strides=_strides(x.plane), table=not x.contiguous, swapped=swapped)
        return [(step, (x,))]

    def _affine(self, node: Node) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """BatchNorm as scale and shift per channel, in float64."""
        c = node.out.shape[1]

        def vector(i: int, default: float) -> NDArray[np.float64]:
            name = node.inputs[i]
            return np.broadcast_to(np.float64(default) if name is None else
                                   self.graph.weights[name].astype(np.float64).reshape(-1), (c,))  # fmt: skip

        scale = vector(1, 1.0) / np.sqrt(vector(4, 1.0) + node.attrs["eps"])
        return scale, vector(2, 0.0) - vector(3, 0.0) * scale

    def _per_lane(self, values: NDArray[Any], out: Blocked) -> Weight:
        """A number per channel (or one for all) in the order of the lanes; 0 in lanes that hold nothing."""
        flat = np.asarray(values).reshape(-1)
        flat = np.broadcast_to(flat, (out.width,)) if flat.size == 1 else flat
        return self.program.weight(np.where(out.channels >= 0, flat[out.channels], 0).astype(np.float32))

    def _arguments(self, epilogue: Epilogue, first: int, count: int) -> tuple[list[Argument], list[Buffer]]:
        """The operands of a run of output blocks, and the buffers they keep alive."""
        arguments: list[Argument] = []
        alive: list[Buffer] = []
        for step, (operand, *_) in ((s, o) for s, o in zip(epilogue.steps, epilogue.operands, strict=True) if o):
            if isinstance(operand, Weight):
                arguments.append(Weight(operand.offset + first * self.lanes * 4))
                continue
            if step.table:
                arguments += [self._start(), _block_table(operand, first, count)]
            else:
                arguments.append(operand.offset(first * self.lanes))
            alive += [b for b, _ in operand.blocks]
        return arguments, alive

    def conv(self, chain: Chain) -> Blocked:
        """Folded weights, then depthwise, dense or grouped."""
        node, tail = chain.head, list(chain.tail)
        weight = self.graph.weights[node.inputs[1] or ""].astype(np.float64)
        bias = self._bias(node, weight.shape[0])
        flow = node.name
        while tail and tail[0].op == "batch_norm":
            scale, shift = self._affine(tail[0])
            weight, bias = weight * scale[:, None, None, None], bias * scale + shift
            flow = tail.pop(0).name
        flows = _flows(flow, tail)
        x_name, groups = node.inputs[0] or "", node.attrs["groups"]
        name = chain.last.name
        if groups > 1 and weight.shape[1] == 1 and weight.shape[0] == groups:
            return self.depthwise(node, name, weight.astype(np.float32), bias, flows)
        few = x_name in self.plain and x_name not in self.blocked and weight.shape[1] * groups < self.lanes
        x = self.get_planar(x_name) if few else self.get_blocked(x_name)
        return self.dense(node, name, x, weight.astype(np.float32), bias, flows, groups)

    def _bias(self, node: Node, width: int) -> NDArray[np.float64]:
        name = node.inputs[2] if len(node.inputs) > 2 else None
        if name is None:
            return np.zeros(width)
        return np.broadcast_to(self.graph.weights[name].astype(np.float64).reshape(-1), (width,))

    def dense(self, node: Node, name: str, x: Blocked, weight: Floats, bias: NDArray[np.float64],
              flows: Sequence[tuple[Node, str | None]], groups: int) -> Blocked:  # fmt: skip
        """One call a group of output blocks that read the same input channels."""
        out = self.new_blocked(name)
        epilogue = self.epilogue(flows, out)
        a, lanes = node.attrs, self.lanes
        biases = self._per_lane(bias, out)
        o, per_group = weight.shape[0], weight.shape[1]
        places, n_blocks = x.places(), len(out.blocks)
        first = 0
        while first < n_blocks:
            low, high = groups_of(first, lanes, o, groups)
            count = 1
            while first + count < n_blocks and groups_of(first + count, lanes, o, groups) == (low, high):
                count += 1
            reads = np.arange(low * per_group, high * per_group)
            part = block_weight(weight, first * lanes, (first + count) * lanes, low, high, groups)
            whole = self._whole_blocks(x, places[reads])
            plane = out.plane
            pad_top, pad_left = (a["pad"][0], a["pad"][1]) if "pad" in a else (0, 0)
            kernel = (int(weight.shape[2]), int(weight.shape[3]))
            spec = ConvSpec(
                lanes, plane.n, len(reads), count, plane.h, plane.w, kernel, tuple(a.get("stride", (1, 1))),
                tuple(a.get("dilation", (1, 1))), _strides(x.plane), _strides(plane), whole is None,
                epilogue.steps, True, self.threads,
            )  # fmt: skip
            spec = flatten(spec)
            choice: ConvChoice = self.choose(spec)
            from_first = -(pad_top * x.plane.row + pad_left * x.plane.column)
            w = self.program.weight(pack(part, spec, min(choice.nb, count)))
            arguments: list[Argument] = []
            if whole is None:
                entries = tuple(x.offset(int(p)) for p in places[reads])
                table = tuple(Place(e.buffer, e.delta + from_first) for e in entries)
                arguments += [self._start(), w, Weight(biases.offset + first * lanes * 4), Table(table)]
            else:
                at = x.offset(whole * lanes)
                arguments += [Place(at.buffer, at.delta + from_first), w, Weight(biases.offset + first * lanes * 4)]
            more, alive = self._arguments(epilogue, first, count)
            arguments += [*more, out.offset(first * lanes)]
            self.program.call(spec, choice, arguments, node.label, [b for b, _ in x.blocks] + alive)
            first += count
        return out

    def _whole_blocks(self, x: Blocked, places: Ints) -> int | None:
        """The first block, if these lanes are whole blocks in order in one buffer."""
        lanes = x.plane.lanes
        if lanes == 1 or len(places) % lanes or places[0] % lanes or np.any(np.diff(places) != 1):
            return None
        first, count = int(places[0]) // lanes, len(places) // lanes
        buffer, index = x.blocks[first]
        run = all(b is buffer and i == index + k for k, (b, i) in enumerate(x.blocks[first : first + count]))
        return first if run else None

    def linear(self, chain: Chain) -> Blocked:
        """A 1x1 convolution of a picture of one pixel."""
        node = chain.head
        weight = self.graph.weights[node.inputs[1] or ""].astype(np.float64)
        weight = (weight.T if node.attrs["transposed"] else weight)[:, :, None, None]
        bias, tail, flow = self._bias(node, weight.shape[0]), list(chain.tail), node.name
        while tail and tail[0].op == "batch_norm":
            scale, shift = self._affine(tail[0])
            weight, bias = weight * scale[:, None, None, None], bias * scale + shift
            flow = tail.pop(0).name
        x = self.get_blocked(node.inputs[0] or "")
        flows = _flows(flow, tail)
        bare = replace(node, attrs={})
        return self.dense(bare, chain.last.name, x, weight.astype(np.float32), bias, flows, 1)

    def depthwise(self, node: Node, name: str, weight: Floats, bias: NDArray[np.float64],
                  flows: Sequence[tuple[Node, str | None]]) -> Blocked:  # fmt: skip
        """Lane by lane; the channels stay in the lanes they are in."""
        x, a = self.compact(node.inputs[0] or ""), node.attrs
        out = self.new_blocked(name, x.channels)
        epilogue = self.epilogue(flows, out)
        lanes, kh, kw = self.lanes, weight.shape[2], weight.shape[3]
        used = x.channels >= 0
        packed = np.zeros((len(x.channels), kh * kw), np.float32)
        packed[used] = weight.reshape(-1, kh * kw)[x.channels[used]]
        packed = packed.reshape(-1, lanes, kh * kw).transpose(0, 2, 1)
        spec = WindowSpec(
            "conv", lanes, out.plane.n, len(out.blocks), out.plane.h, out.plane.w, (kh, kw), tuple(a["stride"]),
            tuple(a["dilation"]), tuple(a["pad"]), (x.plane.h, x.plane.w), _strides(x.plane), _strides(out.plane),
            not x.contiguous, True, epilogue.steps, self.threads,
        )  # fmt: skip
        extra = [self.program.weight(packed), self._per_lane(bias, out)]
        self._window(spec, x, out, extra, epilogue, node.label)
        return out

    def compact(self, name: str) -> Blocked:
        """The value in blocks, moved together if it is spread over more blocks than it fills."""
        x = self.get_blocked(name)
        channels = natural_channels(x.width, self.lanes)
        if len(x.channels) > len(channels):
            x = self.relayout(x, x.plane.margin, channels)
            self.blocked[name] = x
        return x

    def _window(self, spec: Any, x: Blocked, out: Blocked, extra: Sequence[Argument], epilogue: Epilogue,
                label: str) -> None:  # fmt: skip
        table = [_block_table(x, 0, len(x.blocks))] if spec.table else []
        arguments: list[Argument] = [self._start() if spec.table else x.offset(0), *extra, *table]
        more, alive = self._arguments(epilogue, 0, len(out.blocks))
        arguments += [*more, out.offset(0)]
        self.program.call(spec, self.choose(spec), arguments, label, [b for b, _ in x.blocks] + alive)

    def pool(self, chain: Chain) -> Blocked:
        """Max or mean over windows; adaptive ones with even windows too."""
        node = chain.head
        a = node.attrs
        x = self.compact(node.inputs[0] or "")
        out = self.new_blocked(chain.last.name, x.channels)
        epilogue = self.epilogue(_flows(node.name, chain.tail), out)
        size = (x.plane.h, x.plane.w)
        if node.op == "adaptive_avg_pool":
            kernel = stride = (size[0] // a["size"][0], size[1] // a["size"][1])
            pad, dilation, count_pad = (0, 0, 0, 0), (1, 1), True
        else:
            kernel, stride, pad = tuple(a["kernel"]), tuple(a["stride"]), tuple(a["pad"])
            dilation, count_pad = tuple(a.get("dilation", (1, 1))), bool(a.get("include_pad", True))
        spec = WindowSpec(
            "max" if node.op == "max_pool" else "avg", self.lanes, out.plane.n, len(out.blocks), out.plane.h,
            out.plane.w, kernel, stride, dilation, pad, size, _strides(x.plane), _strides(out.plane),
            not x.contiguous, count_pad, epilogue.steps, self.threads,
        )  # fmt: skip
        self._window(spec, x, out, [], epilogue, node.label)
        return out

    def mean(self, chain: Chain) -> Blocked:
        """A reduction over the whole picture."""
        node = chain.head
        x = self.get_blocked(node.inputs[0] or "")
        out = self.new_blocked(chain.last.name, x.channels)
        epilogue = self.epilogue(_flows(node.name, chain.tail), out)
        spec = MeanSpec(
            node.op.removeprefix("reduce_"), self.lanes, x.plane.n, len(x.blocks), x.plane.h, x.plane.w,
            _strides(x.plane), _strides(out.plane), not x.contiguous, epilogue.steps, self.threads,
        )  # fmt: skip
        self._window(spec, x, out, [], epilogue, node.label)
        return out

    def elementwise(self, chain: Chain) -> Blocked:
        """Steps on the first input that has the shape of the result."""
        node = chain.head
        base = next(n for n in node.inputs if n is not None and n not in self.graph.weights
                    and self.graph.value(n).shape == node.out.shape)  # fmt: skip
        x = self.compact(base)
        out = self.new_blocked(chain.last.name, x.channels)
        epilogue = self.epilogue([(node, base), *_flows(node.name, chain.tail)], out)
        spec = MapSpec(
            self.lanes, out.plane.n, len(out.blocks), out.plane.h, out.plane.w, _strides(x.plane),
            _strides(out.plane), not x.contiguous, epilogue.steps, self.threads,
        )  # fmt: skip
        self._window(spec, x, out, [], epilogue, node.label)
        return out

    # --- everything else --------------------------------------------------------------------------------------------

    def tensor_op(self, node: Node) -> None:
        """Row by row through TVM's operator library: correct if slow, and listed."""
        arguments: list[Argument] = []
        shapes: list[tuple[tuple[int, ...], str] | None] = []
        for name in node.inputs:
            if name is None:
                shapes.append(None)
                continue
            value = self.graph.value(name)
            shapes.append((tuple(map(int, value.shape)), value.dtype))
            if name in self.graph.weights:
                arguments.append(self.program.weight(self.graph.weights[name]))
            else:
                arguments.append(self._address(self.get_plain(name)))
        outs = []
        for value in node.outputs:
            shape = tuple(map(int, value.shape))
            self.plain[value.name] = Plain(shape, value.dtype, self._words(shape, value.dtype))
            arguments.append(self._address(self.plain[value.name]))
            outs.append((shape, value.dtype))
        attrs = tuple(sorted((k, _freeze(v)) for k, v in node.attrs.items()))
        if node.op == "opaque":
            raise Unsupported(
                f"{node.source}: operator {node.attrs['target']} has no code generation; "
                "run this network in ONNX Runtime or torch, or replace the operator"
            )
        self.program.by_library.append(f"{node.op} {node.label}")
        self.program.call(TensorSpec(node.op, attrs, tuple(shapes), tuple(outs)), None, arguments, node.label)

    def write_outputs(self) -> None:
        """Copy or convert each output to the caller's memory."""
        for i, name in enumerate(self.graph.outputs):
            value = self.graph.value(name)
            shape, port = tuple(map(int, value.shape)), f"{OUTPUT}{i}"
            out = Plain(shape, value.dtype, port=port)
            if name in self.blocked:
                self._unpack(name, out)
                continue
            source: Argument
            if name in self.graph.weights:
                source = self.program.weight(self.graph.weights[name])
            else:
                source = self._address(self.get_plain(name))
            one = ((shape, value.dtype),)
            self.program.call(TensorSpec("identity", (), one, one), None, [source, Port(port)], f"output {name}")


OUTPUT = "output:"  # the port of a result begins with this


def plan(graph: Graph, target: Target, threads: int, choose: Choose) -> Program:
    """The program of a graph. ``choose`` says how to tile a kernel."""
    return Planner(graph, target, threads, choose).run()


def _freeze(value: Any) -> Any:
    return tuple(map(_freeze, value)) if isinstance(value, (list, tuple)) else value


def _flows(first: str, tail: Sequence[Node]) -> list[tuple[Node, str | None]]:
    names = [first, *(n.name for n in tail)]
    return list(zip(tail, names, strict=False))


def _strides(plane: Plane) -> Strides:
    return Strides(plane.block, plane.image, plane.row, plane.column)


def _relative(places: Sequence[Place]) -> Table:
    return Table(tuple(places), base=places[0])


def _block_table(x: Blocked, first: int, count: int) -> Table:
    return Table(tuple(x.offset(b * x.plane.lanes) for b in range(first, first + count)))


__all__ = ["OUTPUT", "Planner", "blockable", "plan"]
