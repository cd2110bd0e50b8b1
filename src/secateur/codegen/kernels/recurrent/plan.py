"""LSTM and GRU with constant weights: a linear layer over all steps, then the steps, each direction by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from secateur.codegen.kernels.conv.fold import Folded
from secateur.codegen.kernels.conv.plan import write_dense
from secateur.codegen.kernels.post_ops.plan import Epilogue
from secateur.codegen.kernels.row_sparse.packing import Rows
from secateur.codegen.kernels.row_sparse.plan import row_arguments
from secateur.codegen.plan.family import Standalone
from secateur.codegen.plan.placement import Placement, strides
from secateur.codegen.plan.program import Argument, Table
from secateur.codegen.plan.tensors import Address, Blocked, Extent, Floats, natural_channels
from secateur.ir import Node

from .packing import Kept, keep
from .spec import RecurrentSpec


@dataclass(frozen=True)
class Steps:
    """What machines differ in: how the linear layer over all steps is planned, whether zeros in recurrent weights are
    left out, and whether the kernel of the steps needs scratch memory.
    """

    dense: Callable[[Placement, Blocked, Folded, Blocked, Epilogue], Blocked] = write_dense
    sparse: bool = True
    scratch: bool = True


ON_PROCESSORS = Steps()

GATES = {"lstm": 4, "gru": 3}
STATES = {"lstm": 2, "gru": 1}


def is_recurrent(placement: Placement, node: Node) -> bool:
    """Is this a recurrent layer whose weights are known?"""
    if node.op not in GATES:
        return False
    weights = placement.graph.weights
    given = [n for n in node.inputs[1:4] if n is not None]
    computed = [node.inputs[0], *(n for n in node.inputs[4:] if n is not None and n not in weights)]
    return all(map(placement.axes.blockable, computed)) and all(n in weights for n in given)


def recurrent(placement: Placement, node: Node, steps: Steps = ON_PROCESSORS) -> None:
    """x [t, b, i] to y [t, directions, b, hidden] and the last states [directions, b, hidden], named or not."""
    ways = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[node.attrs["direction"]]
    results = [
        placement.new_blocked(node.outputs[0].name),
        *(_state(placement, node, ways) for _ in range(STATES[node.op])),
    ]
    for way, reverse in enumerate(ways):
        _direction(placement, node, way, reverse, results, steps)
    placement.blocked.update(zip((v.name for v in node.outputs), results, strict=False))


def _state(placement: Placement, node: Node, ways: Sequence[bool]) -> Blocked:
    """Fresh blocks for a state [directions, b, hidden]; all states lie alike."""
    batch, hidden = int(placement.graph.value(node.inputs[0] or "").shape[1]), int(node.attrs["hidden"])
    return placement.new_blocks(
        Extent(len(ways), 1, batch, 0, placement.lanes), natural_channels(hidden, placement.lanes)
    )


def _direction(placement: Placement, node: Node, way: int, reverse: bool, results: Sequence[Blocked],
               steps: Steps) -> None:  # fmt: skip
    program, lanes, hidden = placement.program, placement.lanes, int(node.attrs["hidden"])
    names = [*node.inputs, *[None] * (6 - len(node.inputs))]
    w, r = (placement.graph.weights[n or ""][way] for n in names[1:3])
    count, blocks = GATES[node.op], -(-hidden // lanes)
    bias = np.zeros((2, count, hidden), np.float32)
    if names[3] is not None:
        bias = placement.graph.weights[names[3]][way].reshape(2, count, hidden)
    after = node.op == "gru" and bool(node.attrs["linear_before_reset"])
    added = np.array([*(bias[0] + bias[1])[:-1], bias[0][-1] if after else (bias[0] + bias[1])[-1]])
    x = placement.get_blocked(names[0] or "", 2)
    wide = _padded(w.reshape(count, hidden, -1), blocks * lanes)
    work = Folded(node, node.name, wide[:, :, None, None], _padded(added, blocks * lanes).astype(np.float64), ())
    gates = placement.new_blocks(Extent(x.extent.n, 1, x.extent.w, 0, lanes), natural_channels(len(wide), lanes))
    steps.dense(placement, x, work, gates, Epilogue((), ()))
    like = results[1].extent
    wide_r = _padded(r.reshape(count, hidden, hidden), blocks * lanes)
    kept = keep(wide_r, count, placement.target) if steps.sparse and (node.op == "lstm" or after) else None
    weights = _recurrent_weights(placement, wide_r, kept, strides(like).block)
    weights.append(program.weight(_padded(bias[1, -1:], blocks * lanes)))
    first = [_first(placement, name, way, blocks, like) for name in names[4 : 4 + STATES[node.op]]]
    to = [_part(v, way, v.extent.image if i else v.extent.row) for i, v in enumerate(results)]
    states = [argument for pair in zip(first[1:], to[2:], strict=True) for argument in pair]
    spec = RecurrentSpec(
        node.op, lanes, x.extent.n, x.extent.w, hidden, blocks, strides(gates.extent), strides(like),
        strides(results[0].extent), strides(like), reverse, after,
        "" if kept is None else "rows" if isinstance(kept, Rows) else "blocks",
        kept.powers.powers if isinstance(kept, Rows) else (),
    )  # fmt: skip
    scratch = [Address(program.arena.new(max(2, count) * blocks * lanes))] if steps.scratch else []
    program.call(
        spec, None, [gates.offset(0), *weights, first[0], to[0], to[1], *states, *scratch], node.label
    )  # fmt: skip


def _recurrent_weights(placement: Placement, r: Floats, kept: Kept | Rows | None, block: int) -> list[Argument]:
    """The arguments that hold them; ``block`` floats are between blocks of the state."""
    weight, lanes = placement.program.weight, placement.lanes
    if kept is None:
        return [weight(r.T)]
    if isinstance(kept, Rows):
        return row_arguments(placement, kept, block)
    return [weight(kept.weight), Table(kept.unit // lanes * block + kept.unit % lanes), Table(kept.starts)]


def _part(x: Blocked, way: int, step: int) -> Address:
    """Where a direction's part begins."""
    at = x.offset(0)
    return Address(at.buffer, at.delta + way * step)


def _first(placement: Placement, name: str | None, way: int, blocks: int, like: Extent) -> Argument:
    """The state that a direction begins with, which lies like ``like``; zeros if none is given."""
    lanes, weights = placement.lanes, placement.graph.weights
    if name is None or name in weights:
        state = np.zeros((like.w, blocks * lanes), np.float32)
        if name is not None:
            state[:, : weights[name].shape[2]] = weights[name][way]
        spaced = np.zeros((blocks, like.n, like.w, lanes), np.float32)
        spaced[:, 0] = state.reshape(like.w, blocks, lanes).swapaxes(0, 1)
        return placement.program.weight(spaced)
    x = placement.get_blocked(name, 2)
    dense = x.natural and strides(x.extent) == strides(like)
    return _part(x if dense else placement.relayout(x, 0, natural_channels(x.width, lanes)), way, like.image)


def _padded(rows: Floats, width: int) -> Floats:
    """[gates, hidden, ..] as one axis of ``width`` a gate, zeros after the hidden units."""
    gap = [(0, 0), (0, width - rows.shape[1]), *[(0, 0)] * (rows.ndim - 2)]
    wide = np.pad(rows.astype(np.float32), gap)
    return wide.reshape(-1, *rows.shape[2:])


NODES: Mapping[str, Standalone] = MappingProxyType(dict.fromkeys(GATES, Standalone(is_recurrent, recurrent)))
