"""Weights of which half are zero, on sparse tensor cores: packed by hand, emulated in OpenCL, and by nvcc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.speed.gpu_roofline import traffic
from secateur import codegen
from secateur.codegen.kernels.gpu.conv.spec import GpuConvSpec
from secateur.codegen.kernels.gpu.mma.packing import compressed, halved, packed, tf32
from secateur.codegen.kernels.gpu.mma.spec import F16ConvSpec, SparseF16ConvSpec, SparseTf32ConvSpec, Tf32ConvSpec
from secateur.codegen.plan.program import Choice, Spec
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import GPUS, Target
from secateur.ir import Graph
from secateur.passes.sparsify.blocks import pattern_of
from support import gpu
from support.network import Net
from support.tensor_cores import ABLE, EMULATED, ROUNDED, rounded

pytest.importorskip("tvm", reason="code generation needs apache-tvm")
SHAPES = {"tf32": "m16n8k16.row.col.f32.tf32", "f16": "m16n8k32.row.col.f32.f16"}
CHUNK = {"tf32": 2, "f16": 4}


def prune(weight: np.ndarray, chunk: int, taps_first: bool = False) -> None:
    """Half of each chunk of inputs goes, another half in each; by tap, or through the taps of each input."""
    rows = weight.reshape(len(weight), -1) if taps_first else weight.transpose(0, 2, 3, 1).reshape(-1, weight.shape[1])
    rows = rows.copy()
    rng = np.random.default_rng(0)
    for row in rows:
        for start in range(0, len(row), chunk):
            part = row[start : start + chunk]
            part[rng.permutation(len(part))[chunk // 2 :]] = 0
    if taps_first:
        weight[:] = rows.reshape(weight.shape)
    else:
        weight[:] = rows.reshape(len(weight), *weight.shape[2:], weight.shape[1]).transpose(0, 3, 1, 2)


def layers(mode: str, channels: int = 36) -> Graph:
    """1x1, 3x3 with zeros by tap and through taps: odd sizes, so that chunks, slices and tiles hang over."""
    net = Net(1, channels, 5, 4)
    names = [net.conv("x", 35, 1), net.conv("x", 9, 3), net.conv("x", 33, 3, stride=2)]
    for name, first in zip(names, (False, False, True), strict=True):
        prune(net.weights[f"{name}.weight"], CHUNK[mode], first)
    return net.graph(net.relu(names[0]), *names[1:])


def sparse(target: str | Target, number: int = 0) -> Callable[..., Choice | None]:
    """The sparse kernel wherever it is offered, with all sizes of tiles in turn, whole reductions and shared ones."""
    every = gpu.every_choice(target, number)

    def choose(spec: Spec, *others: Spec) -> Choice | None:
        return every(next((s for s in (spec, *others) if getattr(s, "pruned", 1) > 1), spec))

    return choose


def test_a_slice_is_packed_as_the_instruction_reads_it() -> None:
    """By hand: FP16, the weight of chunk k, output o at its positions o % 3 and 3."""
    rows = np.zeros((32, 16), np.float32)
    for k in range(8):
        for o in range(16):
            rows[4 * k + o % 3, o] = k + 1
            rows[4 * k + 3, o] = -1
    assert halved(rows, 2)
    found = compressed(rows, 2)
    assert found.shape == (1, 9, 16)
    halves = np.ascontiguousarray(found[0, :8]).view(np.float16).reshape(8, 16, 2)
    assert halves[:, :, 0].tolist() == [[k + 1] * 16 for k in range(8)]
    assert (halves[:, :, 1] == -1).all()
    where = np.ascontiguousarray(found[0, 8]).view(np.uint32)
    for g in range(8):
        low, high = g % 3 | 0b1100, (g + 8) % 3 | 0b1100
        for half in range(2):
            assert where[2 * g + half] == low * 0x1111 + high * 0x11110000


def test_in_tf32_one_of_two_is_there() -> None:
    rows = np.zeros((16, 16), np.float32)
    rows[::2, :8], rows[1::2, 8:] = 2, 3
    assert halved(rows, 1)
    found = compressed(rows, 1)
    assert (found[0, :8, :8] == 2).all()
    assert (found[0, :8, 8:] == 3).all()
    assert set(np.ascontiguousarray(found[0, 8]).view(np.uint32).tolist()) == {0xEEEE4444}
    rows[0, 8] = 1  # both of the first two
    assert not halved(rows, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(0, 99))
def test_what_is_packed_says_where_it_was(joined: int, slices: int, seed: int) -> None:
    """Unpacked by PTX's words for where numbers are, the rounded weights come back: half of a chunk, or fewer."""
    rng, chunk, lanes = np.random.default_rng(seed), 2 * joined, 32
    rows = tf32(rng.standard_normal((slices * 16 * joined, lanes)).astype(np.float32))
    rows = rows if joined == 1 else rows.astype(np.float16).astype(np.float32)
    order = rng.permuted(np.broadcast_to(np.arange(chunk)[:, None], (len(rows) // chunk, chunk, lanes)), axis=1)
    zeros = rng.integers(chunk // 2, chunk + 1, (len(order), 1, lanes))
    rows[(order < zeros).reshape(rows.shape)] = 0
    found, back = compressed(rows, joined), np.zeros_like(rows)
    where = np.ascontiguousarray(found[:, 8]).view(np.uint32)
    for s in range(slices):
        for o in range(lanes):
            for k in range(8):
                bits = int(where[s, o // 16 * 16 + o % 8 * 2 + k // 4]) >> (o % 16 // 8 * 16 + k % 4 * 4) & 15
                word, at = found[s, k, o : o + 1], (s * 8 + k) * chunk
                if joined == 1:
                    assert bits in (0b0100, 0b1110)
                    back[at + bits // 0b1110, o] = word[0]
                else:
                    first, second = bits & 3, bits >> 2
                    assert first < second  # two positions, in order
                    back[at + first, o], back[at + second, o] = word.view(np.float16)
    assert np.array_equal(back, rows)


def test_words_of_weights_by_hand() -> None:
    """64 x 64 of them: a word each in TF32, half of one in FP16; of 16 words 8 are left, and one says which."""
    plane = Strides(49, 49, 7, 1)
    dense = GpuConvSpec(1, 1, 64, 64, 7, 7, (1, 1), (1, 1), (1, 1), (0, 0), (7, 7), plane, plane, False)
    for kind, stored in (
        (Tf32ConvSpec, 4096), (F16ConvSpec, 2048), (SparseTf32ConvSpec, 2304), (SparseF16ConvSpec, 1152),
    ):  # fmt: skip
        spec = kind.of(dense)
        assert spec.stored == stored
        assert traffic(spec) == 4 * (64 * 49 + stored + 64 * 49)
        weight = np.tile(np.array([1, 0, 0, 1], np.float32), (64, 16)).reshape(64, 64, 1, 1)
        assert packed(weight, spec, spec.choice(64, 64, 2, 4)).size == stored


def families(graph: Graph, mode: str, target: str = "cuda:sm_90") -> list[str]:
    plan = codegen.show_plan(graph, target, precision=codegen.Precision(mode))
    return [line.split()[1].partition("{")[0] for line in plan.splitlines() if "{" in line and ">" in line]


@pytest.mark.parametrize("mode", ROUNDED)
def test_layers_of_many_products_take_them_by_counting(mode: str) -> None:
    """Zeros that fit, enough products, and that precision: all three, else dense kernels stay."""
    net = Net(8, 256, 28, 28)
    wide, few = net.conv("x", 512, 1), net.conv("x", 512, 1)
    prune(net.weights[f"{wide}.weight"], CHUNK[mode])
    net.weights[f"{few}.weight"][0, :3] = 1  # three in a row
    graph = net.graph(wide, few)
    assert families(graph, mode) == [f"{mode}_sparse", mode]
    assert families(graph, "f32") == ["conv", "conv"]
    small = Net(1, 256, 2, 2)
    name = small.conv("x", 512, 1)
    prune(small.weights[f"{name}.weight"], CHUNK[mode])
    assert families(small.graph(name), mode) == ["conv"]  # few pixels have no kernel of tensor cores


@pytest.mark.parametrize(("block", "taken"), [("2:4", {"f16"}), ("1:2", {"f16", "tf32"})])
def test_sparsify_makes_what_they_take(block: str, taken: set[str]) -> None:
    """``--block 2:4`` for FP16, ``1:2`` for either; in 3x3 layers through the taps of each input."""
    net = Net(8, 64, 28, 28)
    names = [net.conv("x", 256, 1), net.conv("x", 256, 3)]
    for name in names:
        weight = net.weights[f"{name}.weight"]
        weight *= pattern_of(block, 8).mask(np.abs(weight.reshape(256, -1)), 0.5).reshape(weight.shape)
    graph = net.graph(*names)
    for mode in ROUNDED:
        assert families(graph, mode) == [f"{mode}_sparse" if mode in taken else mode] * 2


class TestOnGpus:
    """What takes PoCL, Oclgrind or nvcc."""

    pytestmark = gpu.marks()  # skipped where one of these is missing, which Python alone does not bring

    @pytest.mark.parametrize("mode", ROUNDED)
    def test_lanes_have_the_words_that_they_should(self, mode: str) -> None:
        """Next to torch on rounded numbers."""
        graph, x = layers(mode), np.random.default_rng(0).standard_normal((1, 36, 5, 4)).astype(np.float32)
        library = gpu.built(graph, EMULATED, sparse(EMULATED, 3), mode)
        assert library.code.source.count(f"mma_sp_{mode}(") > 3
        assert f" mma_{mode}(" not in library.code.source
        for have, want in zip(gpu.run(library, x), rounded(graph, mode, x), strict=True):
            assert np.abs(have - want).max() <= 2e-6 * np.abs(want).max()

    def test_words_are_not_raced_for(self, tmp_path: Path) -> None:
        net = Net(1, 37, 3, 3)
        name = net.conv("x", 5, 1)
        prune(net.weights[f"{name}.weight"], 4)
        graph, x = net.graph(name), np.random.default_rng(0).standard_normal((1, 37, 3, 3)).astype(np.float32)
        library = gpu.built(graph, EMULATED, sparse(EMULATED), "f16")
        (found,), log = gpu.interpreted(library, tmp_path, x)
        assert not log
        (want,) = rounded(graph, "f16", x)
        assert np.abs(found - want).max() <= 2e-6 * np.abs(want).max()

    @pytest.mark.parametrize(("number", "mode"), [(0, "tf32"), (1, "f16"), (2, "f16"), (3, "tf32")])
    def test_cubins_hold_the_instruction_and_keep_numbers_in_registers(self, number: int, mode: str) -> None:
        target = ABLE[number % 3]
        library = gpu.built(layers(mode), target, sparse(target, 3 * number), mode)
        assert f".sync.aligned.{SHAPES[mode]}" in library.code.source
        assert library.code.source.count("mma_sp_") > 3
        for name, used in library.code.resources.items():
            assert not used.spilled, (name, used)
            assert used.shared <= GPUS[target].shared, (name, used)
