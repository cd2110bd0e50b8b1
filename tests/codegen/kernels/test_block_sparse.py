"""Block-sparse kernels: packing by hand, both kernels against the torch executor, and when they are taken."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

import secateur
from secateur import codegen
from secateur.codegen.assembly import show_plan
from secateur.codegen.backends import backend_for
from secateur.codegen.kernels.block_sparse.packing import PIECES, by_rows, pack_blocks, piece
from secateur.codegen.kernels.block_sparse.panels import panel
from secateur.codegen.kernels.block_sparse.pixels import divided, pixels_of, tilings
from secateur.codegen.kernels.block_sparse.plan import density
from secateur.codegen.kernels.block_sparse.spec import BlockSparseSpec, PanelSpec, UnstructuredSpec
from secateur.codegen.plan.family import Workload
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.strides import Strides
from secateur.codegen.records import Records, workload_of
from secateur.codegen.targets import TARGETS, native
from secateur.codegen.tune.portable import for_here
from secateur.codegen.tune.tuner import Tuner, candidates
from secateur.ir import Graph, InputError
from secateur.passes.train import GroupLasso, attach
from support.alternatives import always
from support.kernels import CONTINUOUS, DRAWN, check, conv, outputs
from support.network import Net

NARROW = for_here(TARGETS["x86-avx2"])
KINDS = (BlockSparseSpec, PanelSpec, UnstructuredSpec)


def sparsify(net: Net, lanes: int, keep: float, seed: int = 0) -> None:
    """Zero blocks of ``lanes`` outputs by one tap of an input, at random, in all kernels that are wider."""
    rng = np.random.default_rng(seed)
    for name, w in net.weights.items():
        if w.ndim == 4 and len(w) > lanes:
            mask = rng.random((-(-len(w) // lanes), *w.shape[1:])) < keep
            net.weights[name] = w * np.repeat(mask, lanes, 0)[: len(w)]


# --- packing --------------------------------------------------------------------------------------------------------


def test_blocks_are_packed_by_hand() -> None:
    """Two output blocks of two lanes, three inputs: the first keeps inputs 0 and 2, the second input 1."""
    weight = np.float32([[1, 0, 3], [2, 0, 0], [0, 5, 0], [0, 6, 0]])[:, :, None, None]
    packed = pack_blocks(weight, 2)
    np.testing.assert_array_equal(packed.weight, [[1, 2], [3, 0], [5, 6]])
    np.testing.assert_array_equal(packed.block, [0, 0, 1])
    np.testing.assert_array_equal(packed.channel, [0, 2, 1])
    assert piece(3, 2) == 2  # so input 2 is of the second piece
    np.testing.assert_array_equal(packed.starts[:3], [0, 1, 2])
    np.testing.assert_array_equal(packed.starts[PIECES : PIECES + 2], [2, 3])
    np.testing.assert_array_equal(by_rows(packed, 1), [1, 3, 2, 0, 5, 6])
    other = pack_blocks(weight, 2, np.array([5, 1, 0]), 6)  # input 0 lies in the third block of inputs, 2 in the first
    np.testing.assert_array_equal(other.channel, [2, 0, 1])
    np.testing.assert_array_equal(other.starts[:4], [0, 1, 1, 2])


@given(st.integers(0, 5), st.integers(1, 40), st.integers(1, 3), st.floats(0, 1), st.integers(1, 5))
def test_unpacking_is_the_inverse(blocks: int, inputs: int, kernel: int, keep: float, workers: int) -> None:
    rng = np.random.default_rng(inputs)
    weight = rng.standard_normal((8 * blocks, inputs, kernel, kernel)).astype(np.float32)
    weight *= np.repeat(rng.random((blocks, inputs, kernel, kernel)) < keep, 8, 0)
    packed = pack_blocks(weight, 8)
    np.testing.assert_array_equal(packed.unpacked(weight.shape), weight)
    shares = packed.shares(workers)
    assert (shares[0], shares[-1]) == (0, blocks)
    assert np.all(np.diff(shares) >= 0)


def test_workers_share_what_is_kept() -> None:
    """The first output block keeps as much as the other three together."""
    weight = np.zeros((32, 30, 1, 1), np.float32)
    weight[:8, :30] = 1
    weight[8:, :10] = 1
    np.testing.assert_array_equal(pack_blocks(weight, 8).shares(2), [0, 1, 4])


def test_records_know_the_density_alone() -> None:
    weight = np.zeros((8, 100, 1, 1), np.float32)
    weight[:, :31] = 1
    assert density(weight, 8) == 35
    assert density(weight[:, ::-1], 8) == 35
    weight[:, 3:] = 0
    assert density(weight, 8) == 3
    assert density(weight * 0, 8) == 1


@pytest.mark.parametrize(("vectors", "most"), [(25, 3), (1, 3), (2, 3), (3, 3), (4, 3), (7, 2), (1, 1), (5, 6), (3, 4)])
def test_tiles_cover_all_vectors(vectors: int, most: int) -> None:
    assert sum(size * times for size, times in divided(vectors, most)) == vectors
    assert all(1 <= size <= most for size, _ in divided(vectors, most))


@given(st.integers(1, 40), st.integers(8, 70), st.integers(1, 2000), st.integers(1, 9), st.integers(1, 9))
def test_workers_hold_every_pixel_once(h: int, w: int, inputs: int, threads: int, wanted: int) -> None:
    spec = PanelSpec(8, 1, inputs, 4, h, w, (1, 1), (1, 1), *[Strides(0, 0, 8 * w, 8)] * 2, False, 50, threads=threads)
    found = pixels_of(spec, NARROW)
    tiles = found.shared(threads)
    counts = [wide * tiles.vectors + narrow * (tiles.vectors - 1)
              for wide, narrow in zip(tiles.wide, tiles.narrow, strict=True)]  # fmt: skip
    assert counts == [tiles.least + (tiles.larger > 0), tiles.least]
    assert counts[0] * tiles.larger + counts[1] * (threads - tiles.larger) == found.total == h * found.each
    assert min(*tiles.wide, *tiles.narrow) >= 0
    assert 1 <= tiles.vectors <= found.vectors
    assert 1 <= tiles.strip(wanted) <= wanted
    assert found.each * 8 + found.left >= w
    assert all(parts * found.part(spec, parts) >= inputs for _, parts in tilings(spec, NARROW, threads))


@given(st.integers(1, 40), st.integers(8, 70), st.integers(1, 40), st.integers(2, 3), st.integers(1, 2),
       st.integers(1, 4))  # fmt: skip
def test_strips_hold_every_pixel(h: int, w: int, inputs: int, kernel: int, dilation: int, threads: int) -> None:
    plane = Strides(0, 0, 8 * (w + 2), 8)
    spec = PanelSpec(8, 1, inputs, 4, h, w, (kernel, kernel), (dilation, dilation), plane, plane, False, 50,
                     threads=threads)  # fmt: skip
    found = panel(spec, NARROW)
    assert found.rows <= h <= found.strips * found.rows
    assert found.channel // 8 % 2 == 1  # so that channels do not meet in a few sets of the cache


# --- the kernels ----------------------------------------------------------------------------------------------------


@DRAWN
@given(
    st.sampled_from(KINDS), st.integers(1, 2), st.integers(1, 30), st.integers(1, 30),
    st.tuples(st.integers(1, 11), st.integers(1, 20)), st.sampled_from([1, 2, 3]), st.integers(1, 2), st.integers(1, 2),
    st.sampled_from(CONTINUOUS), st.integers(1, 3), st.integers(0, 63), st.sampled_from([0.0, 0.2, 0.6]),
)  # fmt: skip
def test_any_shape(kind: type, n: int, ci: int, co: int, size: tuple[int, int], kernel: int, stride: int, dilation: int,
                   activation: str, threads: int, which: int, keep: float) -> None:  # fmt: skip
    """Channels that fill no block, images of any size, also without any weight; a residual after."""
    from support.kernels import ACTIVATIONS

    net = Net(n, 5, *size)
    before = conv(net, "x", ci, (1, 1))
    pad = dilation * (kernel - 1) // 2 + 1
    y = conv(net, before, co, (kernel, kernel), stride=(stride,) * 2, dilation=(dilation,) * 2, pad=(pad,) * 4)
    y = net.node("add", net.node(activation, y, **ACTIVATIONS[activation]), y)
    sparsify(net, 1 if kind is UnstructuredSpec else native().lanes, keep)
    with always(kind, which):
        check(outputs(net, y), threads=threads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_each_choice(kind: type, kernel: int, threads: int) -> None:
    """Every way of tiling, on channels that come from two places."""
    for which in range(4 if kind is BlockSparseSpec else 5 if kernel == 1 and kind is PanelSpec else 2):
        net = Net(1, 3, 9, 17)
        parts = [conv(net, "x", width, (1, 1)) for width in (24, 16)]
        y = conv(net, net.node("concat", *parts, axis=1), 32, (kernel, kernel), pad=(kernel // 2,) * 4)
        sparsify(net, 1 if kind is UnstructuredSpec else native().lanes, 0.3)
        with always(kind, which) as taken:
            check(outputs(net, y), threads=threads)
        assert taken


@pytest.mark.parametrize(
    ("shape", "left", "threads"), [((1, 5, 5), 1, 1), ((2, 5, 5), 2, 2), ((1, 9, 3), 3, 5), ((1, 14, 14), 4, 2)]
)
def test_pixels_that_fill_no_vector(shape: tuple[int, int, int], left: int, threads: int) -> None:
    """A few after the last vector; of two images in one row, in parts of the inputs, by more threads than vectors."""
    n, *size = shape
    net = Net(n, 304, *size)
    graph = outputs(net, net.node("hard_swish", conv(net, "x", 24, (1, 1))))
    sparsify(net, native().lanes, 0.55)
    for which in (0, 1, -1):
        with always(PanelSpec, which) as taken:
            calls = lower(graph, NARROW, threads, Tuner(NARROW, threads, Records()).choose, backend_for(NARROW)).calls
            assert [call.spec.left for call in calls if isinstance(call.spec, PanelSpec)] == [left]
            check(graph, NARROW, threads=threads)
        shared = "blocks" if which == -1 and threads > 1 else "strips"
        assert {(choice.outer, choice.parts > 1) for choice in taken} == {(shared, which != 1)}


@pytest.mark.parametrize("threads", [1, 2])
def test_pixels_that_fill_no_vector_of_images_that_lie_apart(threads: int) -> None:
    """What is written has a halo, so the images are rows of their own."""
    net = Net(2, 304, 1, 25)
    y = conv(net, conv(net, "x", 24, (1, 1)), 8, (3, 3), pad=(1,) * 4)
    sparsify(net, native().lanes, 0.55)
    graph = outputs(net, y)
    with always(PanelSpec):
        calls = lower(graph, NARROW, threads, Tuner(NARROW, threads, Records()).choose, backend_for(NARROW)).calls
        assert (2, 1) in [(call.spec.n, call.spec.left) for call in calls if isinstance(call.spec, PanelSpec)]
        check(graph, NARROW, threads=threads)


@pytest.mark.parametrize("spec", [
    BlockSparseSpec(8, 1, 256, 32, 8, 14, 14, (1, 1), (1, 1), (1, 1), *[Strides(0, 0, 112, 8)] * 2, 50),
    PanelSpec(8, 1, 32, 8, 14, 14, (3, 3), (1, 1), *[Strides(0, 0, 128, 8)] * 2, False, 50),
    PanelSpec(8, 1, 32, 8, 1, 196, (1, 1), (1, 1), *[Strides(0, 0, 0, 8)] * 2, False, 50),
])  # fmt: skip
def test_cores_without_a_second_cache(spec: Workload) -> None:
    """Their choices are those of a core whose second cache holds no more than the first."""
    bare, same = replace(NARROW, l2=0), replace(NARROW, l2=NARROW.l1)
    assert candidates(spec, bare)[:1] == candidates(spec, same)[:1]
    if isinstance(spec, BlockSparseSpec):
        assert candidates(spec, bare) == candidates(spec, same)
        assert max(choice.groups for choice in candidates(spec, bare)) > 1


def test_linear_layers_are_sparse_too() -> None:
    net = Net(3, 64)
    w = net.weight("w", 32, 64)
    w_blocks = net.weights["w"].reshape(4, 8, 64)
    w_blocks[:, :, ::2] = 0
    y = net.node("linear", "x", w, None, transposed=False)
    with always(BlockSparseSpec) as taken:
        check(outputs(net, y))
    assert taken


# --- when they are taken --------------------------------------------------------------------------------------------


def layer(keep: float) -> Graph:
    net = Net(1, 3, 28, 28)
    y = conv(net, conv(net, "x", 256, (1, 1)), 256, (1, 1))
    sparsify(net, native().lanes, keep)
    return outputs(net, y)


def test_a_layer_with_enough_zeros_is_planned_sparse() -> None:
    assert "block_sparse" in show_plan(layer(0.3))
    assert "block_sparse" not in show_plan(layer(0.95))


def test_columns_that_group_lasso_zeroed_are_left_out() -> None:
    """Shape-wise sparsity in training: a column of the kernel at zero is a block at zero for all outputs."""
    module = torch.nn.Conv2d(64, 64, 3, padding=1)
    with torch.no_grad():
        module.weight *= (torch.rand(1, 64, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.15) + 0.01
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    with attach(optimiser, GroupLasso(module, 0.1, ("shape",))):
        optimiser.zero_grad()
        (0 * module(torch.zeros(1, 64, 14, 14))).sum().backward()
        optimiser.step()
    columns = (module.weight == 0).all(0)
    assert 0.75 < float(columns.float().mean()) < 0.95
    graph = secateur.trace(module.eval(), (torch.zeros(1, 64, 14, 14),))
    assert "block_sparse" in show_plan(graph)
    check(graph)


def test_records_of_patterns_with_as_many_blocks_are_the_same() -> None:
    plane = Strides(0, 0, 8, 8)
    make = partial(BlockSparseSpec, 8, 1, 64, 8, 8, 1, 49, (1, 1), (1, 1), (1, 1), plane, plane)
    assert workload_of(make(35)) == workload_of(make(35))
    assert workload_of(make(35)) != workload_of(make(40))


def test_a_library_whose_tables_are_damaged_is_not_run(tmp_path: Path) -> None:
    """Any bit of offsets and counts of kept blocks: with one of another value the code would read anywhere."""
    net = Net(1, 24, 3, 9)
    y = conv(net, "x", 16, (3, 3), pad=(1,) * 4)
    sparsify(net, native().lanes, 0.3)
    with always(BlockSparseSpec, 0) as taken:
        codegen.build(outputs(net, y), threads=1).save(tmp_path / "good.so")
    assert taken
    good, path = (tmp_path / "good.so").read_bytes(), tmp_path / "bad.so"
    with zipfile.ZipFile(tmp_path / "good.so") as archive:
        entry = archive.getinfo("tables.bin")
        start = good.index(archive.read("tables.bin"), entry.header_offset)
    rng = np.random.default_rng(0)
    for at in start + rng.integers(0, entry.file_size, 40):
        path.write_bytes(good[:at] + bytes([good[at] ^ (1 << int(rng.integers(8)))]) + good[at + 1 :])
        with pytest.raises(InputError, match="damaged"):
            codegen.load_library(path)
