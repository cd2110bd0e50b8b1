"""Copies against the torch executor: views where strides can say it, else one copy, and nothing left to TVM."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from secateur import codegen
from secateur.codegen.backends import backend_for
from secateur.codegen.kernels.elementwise.spec import MapSpec
from secateur.codegen.plan.copies import Memories, as_matrix, view
from secateur.codegen.plan.copy_specs import CopySpec, MoveSpec, TableCopySpec
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.tensors import Blocked, Buffer, Extent, natural_channels
from secateur.codegen.targets import Target
from secateur.codegen.tune.tuner import default_choice
from secateur.ir import Graph
from secateur.ir.ops import END
from support.kernels import DRAWN, check, conv, outputs, runnable
from support.network import Net

targets = st.sampled_from(runnable())


def step(net: Net, x: str, draw: Any) -> str:
    """A drawn copy of a value of any rank."""
    shape = net.shape(x)
    rank = len(shape)
    axis = draw(st.integers(0, rank - 1))
    size = shape[axis]
    kind = draw(
        st.sampled_from(
            [
                "transpose",
                "split",
                "merge",
                "slice",
                "roll",
                "flip",
                "pad",
                "reflect",
                "concat",
                "cut",
                "gather",
                "tile",
            ]
        )
    )
    if kind == "transpose":
        return str(net.node("transpose", x, perm=tuple(draw(st.permutations(range(rank))))))
    if kind == "split" and rank < 5:
        by = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
        return str(net.node("reshape", x, shape=(*shape[:axis], by, size // by, *shape[axis + 1 :])))
    if kind == "merge" and axis + 1 < rank:
        return str(net.node("flatten", x, start=axis, end=axis + 1))
    if kind == "slice":
        start = draw(st.integers(0, size - 1))
        by = draw(st.sampled_from([1, 2, -1]))
        end = -END if by < 0 else END
        return str(net.node("slice", x, axes=(axis,), starts=(start,), ends=(end,), steps=(by,)))
    if kind == "roll":
        return str(net.node("roll", x, shifts=(draw(st.integers(-3, 3)),), axes=(axis,)))
    if kind == "flip":
        return str(net.node("flip", x, axes=(axis,)))
    if kind in {"pad", "reflect"}:
        pads = [0] * (2 * rank)
        pads[axis], pads[rank + axis] = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        mode = "constant" if kind == "pad" else draw(st.sampled_from(["reflect", "edge", "wrap"]))
        if mode == "constant" or size > 2:
            return str(net.node("pad", x, pads=tuple(pads), mode=mode, value=0.0))
    if kind == "concat":
        other = net.node("flip", x, axes=(draw(st.integers(0, rank - 1)),))
        return str(net.node("concat", x, other, axis=axis))
    if kind == "cut" and size > 1:
        at = draw(st.integers(1, size - 1))
        return str(net.node("split", x, axis=axis, sizes=(at, size - at), outs=2)[draw(st.integers(0, 1))])
    if kind == "gather":
        name = f"i{len(net.nodes)}"
        net.weights[name] = np.array(draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=5)), np.int64)
        return str(net.node("gather", x, name, axis=axis))
    if kind == "tile" and np.prod(shape) < 4000:
        repeats = [1] * rank
        repeats[axis] = 2
        return str(net.node("tile", x, repeats=tuple(repeats)))
    return x


@DRAWN
@given(st.data(), targets, st.integers(1, 2), st.integers(1, 40), st.integers(1, 5))
def test_any_chain_of_copies(data: Any, target: Target, n: int, width: int, steps: int) -> None:
    net = Net(n, 5, 4, 6)
    x = conv(net, "x", width, (1, 1))
    for _ in range(steps):
        x = step(net, x, data.draw)
    lib = check(outputs(net, net.node("relu", x), net.linear(x, 7)), target)
    assert not lib.metadata.notes


@DRAWN
@given(targets, st.integers(1, 3), st.integers(1, 4), st.integers(1, 34), st.integers(2, 5))
def test_heads_of_any_width(target: Target, n: int, heads: int, per: int, tokens: int) -> None:
    net = Net(n, tokens, 12)
    three = net.node("reshape", net.linear("x", 3 * heads * per), shape=(n, tokens, 3, heads, per))
    three = net.node("transpose", three, perm=(2, 0, 3, 1, 4))
    q, k, v = (net.node("squeeze", net.node("slice", three, axes=(0,), starts=(i,), ends=(i + 1,), steps=(1,)),
                        axes=(0,)) for i in range(3))  # fmt: skip
    scores = net.node("matmul", q, net.node("transpose", k, perm=(0, 1, 3, 2)))
    scores = net.node("add", scores, net.weight("bias", 1, heads, tokens, tokens))
    mixed = net.node("transpose", net.node("matmul", net.node("softmax", scores, axis=3), v), perm=(0, 2, 1, 3))
    lib = check(outputs(net, net.linear(net.node("reshape", mixed, shape=(0, 0, -1)), 12)), target)
    assert not lib.metadata.notes


@DRAWN
@given(targets, st.integers(1, 2), st.integers(1, 40), st.integers(2, 3), st.integers(0, 2), st.integers(0, 1))
def test_windows_with_a_class_token(target: Target, n: int, width: int, window: int, shift: int, token: int) -> None:
    side = 2 * window
    net = Net(n, 3, side, side)
    x = net.node("transpose", conv(net, "x", width, (1, 1)), perm=(0, 2, 3, 1))
    y = net.node("roll", net.linear(x, width), shifts=(-shift, -shift), axes=(1, 2))
    y = net.node("reshape", y, shape=(n, 2, window, 2, window, width))
    y = net.node("reshape", net.node("transpose", y, perm=(0, 1, 3, 2, 4, 5)), shape=(4 * n, window**2, width))
    if token:
        first = net.node("expand", net.weight("token", 1, 1, width), shape=(4 * n, 1, width))
        y = net.node("concat", first, y, axis=1)
    y = net.node("add", y, net.weight("position", 1, window**2 + token, width))
    y = net.node("slice", net.linear(y, width), axes=(1,), starts=(token,), ends=(END,), steps=(1,))
    y = net.node("reshape", y, shape=(n, 2, 2, window, window, width))
    y = net.node("reshape", net.node("transpose", y, perm=(0, 1, 3, 2, 4, 5)), shape=(n, side, side, width))
    y = net.node("add", x, net.node("roll", y, shifts=(shift, shift), axes=(1, 2)))
    lib = check(outputs(net, conv(net, net.node("transpose", y, perm=(0, 3, 1, 2)), 5, (3, 3), pad=(1, 1, 1, 1))),
                target)  # fmt: skip
    assert not lib.metadata.notes


@DRAWN
@given(targets, st.sampled_from(["CRD", "DCR"]), st.integers(2, 3), st.integers(1, 20), st.booleans())
def test_pixel_shuffles(target: Target, mode: str, block: int, width: int, deep: bool) -> None:
    net = Net(2, 3, 6, 6)
    x = conv(net, "x", width * block**2 if deep else width, (1, 1))
    y = net.node("depth_to_space" if deep else "space_to_depth", x, block=block, mode=mode)
    lib = check(outputs(net, conv(net, y, 4, (3, 3), pad=(1, 1, 1, 1))), target)
    assert not lib.metadata.notes


def test_channels_last_input_and_output() -> None:
    net = Net(2, 9, 8, 3)
    x = conv(net, net.node("transpose", "x", perm=(0, 3, 1, 2)), 20, (3, 3), stride=(2, 2), pad=(1, 1, 1, 1))
    lib = check(outputs(net, net.node("transpose", x, perm=(0, 2, 3, 1))))
    assert not lib.metadata.notes


def test_a_value_read_along_two_axes() -> None:
    net = Net(2, 20, 20)
    x = net.linear("x", 20)
    a = net.node("softmax", x, axis=1)
    lib = check(outputs(net, net.node("add", net.node("mul", a, x), net.node("softmax", x, axis=2))))
    assert not lib.metadata.notes


def copies(graph: Graph) -> list[str]:
    """Which values a plan copies, each once; what brings the input into its form or an output out of it is left out."""
    target = codegen.get_target("x86-avx512")
    calls = lower(graph, target, 1, lambda spec, *_: default_choice(spec, target), backend_for(target)).calls
    at_the_ends = {f"pad {graph.inputs[0].name}", f"to blocks {graph.inputs[0].name}"}
    at_the_ends |= {f"from blocks {name}" for name in graph.outputs}
    moved = dict.fromkeys(c.label for c in calls if isinstance(c.spec, (CopySpec, TableCopySpec, MoveSpec)))
    return [label for label in moved if label not in at_the_ends]


def test_turning_channels_to_the_end_and_back_copies_nothing() -> None:
    net = Net(1, 3, 8, 8)
    x = conv(net, "x", 32, (3, 3), pad=(1, 1, 1, 1))
    last = net.node("transpose", x, perm=(0, 2, 3, 1))
    y = net.linear(net.node("layer_norm", last, net.weight("g", 32), net.weight("b", 32), dims=1, eps=1e-6), 32)
    back = net.node("add", net.node("transpose", y, perm=(0, 3, 1, 2)), x)
    assert copies(outputs(net, conv(net, back, 32, (3, 3), groups=32, pad=(1, 1, 1, 1)))) == []


@pytest.mark.parametrize("shared", [False, True])
def test_an_activation_of_joined_values_is_applied_where_each_is_made(shared: bool) -> None:
    """Unless something else reads what was joined, or a part of it."""
    net = Net(1, 3, 9, 9)
    x = conv(net, "x", 24, (3, 3), stride=(2, 2), pad=(1, 1, 1, 1))
    pooled = net.node("max_pool", x, kernel=(3, 3), stride=(1, 1), pad=(1, 1, 1, 1), dilation=(1, 1), ceil=False)
    other = conv(net, x, 40, (1, 1))
    y = net.node("relu", net.node("concat", pooled, other, axis=1))
    graph = outputs(net, conv(net, y, 8, (1, 1)), *((other,) if shared else ()))
    target = codegen.get_target("native")
    specs = [
        type(c.spec)
        for c in lower(graph, target, 1, lambda spec, *_: default_choice(spec, target), backend_for(target)).calls
    ]
    assert (MapSpec in specs) is shared
    check(graph)


@pytest.mark.parametrize("per", [16, 32])
def test_heads_of_whole_vectors_are_views(per: int) -> None:
    net = Net(1, 10, 64)
    graph = outputs(net, _attention(net, per))
    (turned,) = copies(graph)  # nothing else moves
    keys = next(n for n in graph.nodes if n.op == "matmul").inputs[1]
    assert turned == f"move {keys}"


def _attention(net: Net, per: int) -> str:
    heads = 64 // per
    q, k, v = (net.node("transpose", net.node("reshape", net.linear("x", 64), shape=(1, 10, heads, per)),
                        perm=(0, 2, 1, 3)) for _ in range(3))  # fmt: skip
    scores = net.node("softmax", net.node("matmul", q, net.node("transpose", k, perm=(0, 1, 3, 2))), axis=3)
    mixed = net.node("transpose", net.node("matmul", scores, v), perm=(0, 2, 1, 3))
    return net.linear(str(net.node("reshape", mixed, shape=(1, 10, 64))), 64)


def blocked(width: int = 40, lanes: int = 16) -> tuple[Memories, Blocked]:
    """A tensor [1, width, 4, 6] in blocks."""
    extent, channels = Extent(1, 4, 6, 0, lanes), natural_channels(width, lanes)
    buffer = Buffer(extent.block * len(channels) // lanes, True)
    return Memories(), Blocked(
        extent, tuple((buffer, i * extent.block) for i in range(len(channels) // lanes)), channels
    )


def test_a_view_sees_every_second_row_and_reversed_columns() -> None:
    memories, x = blocked()
    addresses = memories.of_blocked(x, (1, 40, 4, 6), 1)[:, :, ::2, ::-1]
    seen = view(memories, addresses, 1, 16)
    assert seen is not None
    assert np.array_equal(memories.of_blocked(seen, (1, 40, 2, 6), 1), addresses)


def test_no_view_of_rolled_pixels_or_of_channels_as_pixels() -> None:
    memories, x = blocked()
    addresses = memories.of_blocked(x, (1, 40, 4, 6), 1)
    assert view(memories, np.roll(addresses, 1, 2), 1, 16) is None
    assert view(memories, addresses, 3, 16) is None
    assert as_matrix(addresses, 1).shape == (24, 40)


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_no_view_of_pixels_in_two_memories(axis: int) -> None:
    """Numbers of memories are the high bits of addresses: two rows in two of them look like one long stride."""
    memories, x = blocked()
    one = memories.of_blocked(x, (1, 40, 4, 6), 1)
    _, y = blocked()
    other = memories.of_blocked(y, (1, 40, 4, 6), 1)
    firsts = [np.take(a, [0], axis) for a in (one, other)]
    assert view(memories, firsts[0], 1, 16) is not None
    assert view(memories, np.concatenate(firsts, axis), 1, 16) is None


def test_the_first_rows_of_two_values_joined() -> None:
    net = Net(1, 5, 4, 6)
    x, y = (net.node("slice", conv(net, "x", 24, (1, 1)), axes=(2,), starts=(0,), ends=(1,), steps=(1,))
            for _ in range(2))  # fmt: skip
    joined = net.node("concat", x, y, axis=2)
    check(outputs(net, net.node("relu", joined), conv(net, joined, 7, (1, 1))))


def test_rows_without_whole_vectors_are_not_seen_as_blocks() -> None:
    memories = Memories()
    buffer = Buffer(96)
    addresses = memories.number(buffer) + np.arange(96).reshape(2, 48)
    assert view(memories, addresses, 1, 16) is not None
    assert view(memories, addresses.reshape(4, 24), 1, 16) is None
