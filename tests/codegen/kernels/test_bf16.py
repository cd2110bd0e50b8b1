"""Layers in bfloat16: what their kernels compute on any machine, by arithmetic that rounds as the instructions do."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.reach import bf16_loops
from secateur import codegen
from secateur.codegen.backends import backend_for
from secateur.codegen.kernels.bf16.packing import rounded
from secateur.codegen.kernels.bf16.spec import Bf16ConvSpec
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.precision import Precision
from secateur.codegen.records import Records, key_of
from secateur.codegen.targets import TARGETS, Target, missing_features, native, target_for
from secateur.codegen.tune import timing
from secateur.codegen.tune.tuner import Tuner, candidates
from secateur.ir import Graph, InputError
from secateur.ir.frontends.torch.trace import trace
from support.kernels import DRAWN, conv
from support.kernels import check as compared
from support.network import Net
from support.planned import NETWORKS

pytest.importorskip("tvm", reason="code generation needs apache-tvm")

BF16 = Precision("bf16")
DOTS = replace(native(), bf16="portable")
MATRIX = replace(native(), lanes=4, bf16="portable_matrix")  # as Arm's, two pixels by two outputs a product
BOTH = pytest.mark.parametrize("target", [DOTS, MATRIX], ids=["dots", "matrix"])


def near(array: Any) -> torch.Tensor:
    """The nearest bfloat16 of each number."""
    return torch.from_numpy(np.asarray(array, np.float32)).to(torch.bfloat16).to(torch.float64)


def convolved(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The first convolution of a graph, of rounded numbers, in double precision."""
    node = graph.nodes[0]
    w, b = (graph.weights[name or ""] for name in node.inputs[1:])
    a = node.attrs
    return torch.nn.functional.conv2d(
        near(x), near(w), torch.from_numpy(b).double(), a["stride"], a["pad"][:2], a["dilation"]
    ).numpy()


def build(graph: Graph, target: Target, threads: int = 1, precision: Precision = BF16) -> codegen.Library:
    """A library, and that all its convolutions are in bfloat16."""
    library = codegen.build(graph, target, threads=threads, precision=precision)
    assert library.metadata.precision == "bf16"
    return library


def drawn(graph: Graph, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(graph.inputs[0].shape).astype(np.float32)


def check(have: np.ndarray, want: np.ndarray, limit: float = 2e-6) -> None:
    assert have.shape == want.shape
    assert np.abs(have - want).max() <= limit * np.abs(want).max()


SHAPES = st.tuples(
    st.integers(1, 3), st.integers(9, 40), st.integers(1, 40), st.integers(1, 9), st.integers(1, 20),
    st.sampled_from([(1, 1), (3, 3), (1, 3), (5, 5), (2, 2)]), st.sampled_from([(1, 1), (2, 2), (1, 3)]),
    st.sampled_from([(1, 1), (2, 1)]), st.integers(1, 3),
)  # fmt: skip


@BOTH
@given(shape=SHAPES)
@DRAWN
def test_any_convolution_is_that_of_rounded_numbers(target: Target, shape: Any) -> None:
    """Channels that fill no vector, strides, dilation, odd numbers of pixels, batches, threads."""
    n, ci, co, h, w, kernel, stride, dilation, threads = shape
    net = Net(n, ci, h, w)
    pad = tuple((k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True))
    if min(size + 2 * p - (k - 1) * d for size, p, k, d in zip((h, w), pad, kernel, dilation, strict=True)) < 1:
        return
    graph = net.graph(conv(net, "x", co, kernel, stride=stride, dilation=dilation, pad=(*pad, *pad)))
    library = codegen.build(graph, target, threads=threads, precision=BF16)
    x = drawn(graph)
    lanes = -(-ci // target.lanes) * target.lanes
    assert library.metadata.precision == ("bf16" if 2 * ci >= lanes else "f32")
    if library.metadata.precision == "bf16":
        check(library(x), convolved(graph, x))


@BOTH
def test_every_tiling_computes_the_same(target: Target) -> None:
    threads = 3
    net = Net(2, 24, 7, 9)
    graph = net.graph(net.relu(conv(net, "x", 40, (3, 3), pad=(1, 1, 1, 1))))
    x = drawn(graph)
    want = np.maximum(convolved(graph, x), 0)
    backend = backend_for(target, BF16)
    tuner = Tuner(target, threads, Records())
    spec = next(c.spec for c in lower(graph, target, threads, tuner.choose, backend).calls
                if isinstance(c.spec, Bf16ConvSpec))  # fmt: skip
    like = build(graph, target, threads).metadata
    for choice in list(candidates(spec.workload(), target))[::4]:

        def choose(spec: Any, *others: Any, choice: Any = choice) -> Any:
            return choice if isinstance(spec, Bf16ConvSpec) else tuner.choose(spec, *others)

        program = lower(graph, target, threads, choose, backend)
        made = backend.assemble(program, graph, target)
        check(made.library(replace(like, arena_words=made.arena_words))(x), want)


@BOTH
def test_post_operations_work_in_float32(target: Target) -> None:
    """A residual, an activation and the bias are added to the sums; what is written is not rounded."""
    net = Net(1, 32, 6, 5)
    graph = net.graph(net.relu(net.node("add", conv(net, "x", 32, (1, 1)), "x")))
    x = drawn(graph)
    check(build(graph, target)(x), np.maximum(convolved(graph, x) + x, 0))


@BOTH
def test_lanes_that_are_not_read_do_not_count(target: Target) -> None:
    """Channels of a concat and of a split lie anywhere, and those of others next to them are infinite."""
    net = Net(1, 30, 4, 4)
    part = net.node("slice", "x", axes=(1,), starts=(5,), ends=(26,), steps=(1,))
    graph = net.graph(conv(net, part, 10, (1, 1)))
    x = drawn(graph)
    x[:, :5] = np.inf
    x[:, 26:] = np.nan
    node = graph.nodes[1]
    w, b = (graph.weights[name or ""].astype(np.float64) for name in node.inputs[1:])
    want = torch.nn.functional.conv2d(near(x[:, 5:26]), near(w), torch.from_numpy(b)).numpy()
    check(build(graph, target)(x), want)


@BOTH
def test_what_is_not_finite_stays_in_its_sample(target: Target) -> None:
    """NaN and Inf in a batch come out as such, and other samples are the same to the last bit."""
    net = Net(4, 16, 5, 5)
    graph = net.graph(conv(net, "x", 16, (3, 3), pad=(1, 1, 1, 1)))
    library, x = build(graph, target, 2), drawn(graph)
    clean = library(x)
    x[1, 3, 2, 2], x[2, 0, 0, 0] = np.nan, np.inf
    x[3] = 3.4e38  # beyond the largest bfloat16
    found = library(x)
    assert np.array_equal(found[0], clean[0])
    assert np.isnan(found[1, :, 1:4, 1:4]).all()
    assert np.array_equal(found[1, :, 0], clean[1, :, 0])
    assert not np.isfinite(found[2, :, :2, :2]).any()
    assert np.array_equal(found[2, :, 3:], clean[2, :, 3:])
    assert not np.isfinite(found[3]).any()


@BOTH
@pytest.mark.parametrize("rows", [1, 5])
def test_a_linear_layer(target: Target, rows: int) -> None:
    net = Net(rows, 33)
    graph = net.graph(net.linear("x", 21))
    x = drawn(graph)
    node = graph.nodes[0]
    w, b = (graph.weights[name or ""] for name in node.inputs[1:])
    check(build(graph, target, 2)(x), (near(x) @ near(w).T).numpy() + b)


@BOTH
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (torch.nn.ConvTranspose2d(24, 20, 4, 2, 1), (2, 24, 7, 5)),
        (torch.nn.Conv1d(32, 24, 5, 2, 2), (2, 32, 31)),
        (torch.nn.Linear(40, 24), (2, 7, 40)),
    ],
    ids=["transposed", "signal", "tokens"],
)
def test_other_layers_that_are_convolutions(target: Target, layer: torch.nn.Module, shape: tuple[int, ...]) -> None:
    graph = trace(layer.eval(), (torch.zeros(shape),))
    x, wide = drawn(graph), deepcopy(layer).double()
    wide.weight.data = near(wide.weight.detach().float())
    check(build(graph, target, 2)(x), wide(near(x)).detach().numpy())


@BOTH
@pytest.mark.parametrize("name", ["residual", "shuffled", "attentive"])
def test_whole_networks_stay_in_their_memory(target: Target, name: str) -> None:
    """And near float32: scratch and what lies next to it hold NaN first."""
    assert compared(NETWORKS[name](), target, 6e-2, 2, "bf16").metadata.kernels["bf16"] >= 3


def test_layers_without_such_a_kernel_stay_in_float32_and_are_named() -> None:
    net = Net(1, 3, 12, 12)
    first = net.conv("x", 32, 3)
    deep = net.node("conv", first, net.weight("wd", 32, 1, 3, 3), net.weight("bd", 32), stride=(1, 1),
                    dilation=(1, 1), pad=(1, 1, 1, 1), groups=32)  # fmt: skip
    graph = net.graph(net.conv(deep, 16, 1))
    notes = build(graph, DOTS).metadata.notes
    plain, last = [node.label for node in graph.nodes[:2]], graph.nodes[2].label
    assert "bf16: 1 layers multiply in bf16 and add up in f32" in notes
    assert f"in f32, as they have no bf16 kernel: {', '.join(plain)}" in notes
    kept = codegen.build(graph, DOTS, precision=Precision("bf16", frozenset({last}))).metadata
    assert kept.precision == "f32"
    assert f"in f32, as bf16 is too coarse for them: {last}" in kept.notes


def test_without_being_asked_nothing_changes() -> None:
    net = Net(1, 32, 9, 9)
    graph = net.graph(net.conv("x", 32, 1))
    plain, able = (codegen.build(graph, t).metadata for t in (native(), DOTS))
    assert (plain.kernels, plain.precision, plain.notes) == (able.kernels, able.precision, able.notes)


def test_auto_takes_what_promises_to_be_faster() -> None:
    net = Net(1, 64, 20, 20)
    graph = net.graph(net.conv("x", 64, 1))
    made = [codegen.build(graph, replace(DOTS, bf16_rate=r), precision=Precision("auto")).metadata for r in (4.0, 0.2)]
    assert [m.precision for m in made] == ["bf16", "f32"]


@pytest.mark.parametrize("target", ["x86-avx512-bf16", "aarch64:neoverse-v1"])
def test_code_for_processors_with_bfloat16_has_their_instructions(target: str) -> None:
    """In the innermost loop, between loads, prefetches and counting, and with all sums in registers."""
    net = Net(1, 64, 28, 28)
    graph = net.graph(net.conv("x", 64, 3))
    chosen = target_for(target, "bf16")
    backend = backend_for(chosen, BF16)
    program = lower(graph, chosen, 1, Tuner(chosen, 1, Records()).choose, backend)
    text = str(backend.assemble(program, graph, chosen).module.inspect_source("asm"))
    product, rounding = bf16_loops.INSTRUCTIONS[chosen.bf16]
    loop = bf16_loops.hottest(text, product)
    assert loop.count(product) >= 20
    assert loop.spills == 0
    assert len(loop.body) <= 2 * loop.count(product)
    assert bf16_loops.hottest(text, rounding).count(rounding)
    assert "truncsfbf" not in text, "a call of the compiler's runtime library"


@BOTH
def test_such_kernels_are_measured_and_recorded_by_their_type(target: Target) -> None:
    net = Net(1, 20, 6, 6)
    graph = net.graph(net.conv("x", 16, 3))
    backend = backend_for(target, BF16)
    calls = lower(graph, target, 1, Tuner(target, 1, Records()).choose, backend).calls
    spec = next(c.spec for c in calls if isinstance(c.spec, Bf16ConvSpec))
    for choice in candidates(spec.workload(), target)[:2]:
        timing.callable_of(spec.workload(), choice, target)()
    _, kind, workload = key_of(target.name, spec.workload())
    assert kind == "Bf16ConvSpec"
    assert '"dtype":"bf16"' in workload


def test_the_kernels_in_float32_of_such_a_target_have_the_records_of_its_twin() -> None:
    target = TARGETS["x86-avx512-bf16"]
    net = Net(1, 20, 6, 6)
    graph = net.graph(net.conv("x", 16, 3))
    both = [backend_for(target, Precision(mode)) for mode in ("f32", "bf16")]
    tuner = Tuner(target, 1, Records())
    specs = [next(c.spec for c in lower(graph, target, 1, tuner.choose, b).calls if hasattr(c.spec, "computes"))
             for b in both]  # fmt: skip
    assert [tuner.name(s) for s in specs] == ["x86-avx512", "x86-avx512-bf16"]


def test_rounding_is_that_of_torch() -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 1 << 32, 4096, dtype=np.uint32).view(np.float32)
    have = (rounded(array).astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(have, near(array).float().numpy(), equal_nan=True)


def test_precisions_are_refused_where_they_are_not() -> None:
    with pytest.raises(InputError, match=r"unknown precision 'bf61'.*did you mean bf16"):
        target_for("native", "bf61")
    with pytest.raises(InputError, match=r"target x86-avx2 has no instructions.*avx512_bf16 \(x86-avx512-bf16\)"):
        target_for("x86-avx2", "bf16")
    with pytest.raises(InputError, match="target opencl has no instructions"):
        target_for("opencl", "bf16")
    assert target_for("x86-avx2", "auto") == TARGETS["x86-avx2"]
    assert "bf16" in target_for("aarch64:neoverse-v1", "bf16").features
    assert "bf16" not in target_for("aarch64:neoverse-v1", "f32").features


@pytest.mark.parametrize("has", [True, False])
def test_native_is_a_target_with_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    able = TARGETS["x86-avx512-bf16"]
    features = frozenset({*able.features, "avx2"}) - (frozenset() if has else {"avx512_bf16"})
    monkeypatch.setattr(codegen.targets, "cpu_features", lambda: features)
    monkeypatch.setattr(codegen.targets, "at_home", lambda target: target.triple.startswith("x86"))
    assert target_for("native", "f32").name == "x86-avx512"
    assert target_for("native", "auto").name == ("x86-avx512-bf16" if has else "x86-avx512")
    if has:
        assert target_for("native", "bf16").name == "x86-avx512-bf16"
        return
    with pytest.raises(InputError, match="this machine has no instructions that multiply bfloat16"):
        target_for("native", "bf16")


def test_a_library_for_bfloat16_elsewhere_is_a_clear_error(tmp_path: Any) -> None:
    """It can be built and saved anywhere; a machine without the instructions says what it lacks, and keeps the file."""
    lacking = [t for t in ("x86-avx512-bf16", "aarch64:neoverse-v1") if missing_features(target_for(t, "bf16"))]
    net = Net(1, 16, 4, 4)
    graph = net.graph(net.conv("x", 16, 1))
    library = codegen.build(graph, lacking[0], precision=BF16)
    with pytest.raises(InputError, match="this machine lacks"):
        library(drawn(graph))
