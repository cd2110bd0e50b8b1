"""Products on tensor cores, by the same lanes and words emulated in OpenCL, and by nvcc as what they are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from secateur import InputError, codegen
from secateur.codegen.kernels.gpu.mma.packing import pairs, tf32
from secateur.codegen.targets import GPUS, Target, target_for
from secateur.deploy import build
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import evaluate
from support import gpu
from support.network import Net
from support.tensor_cores import ABLE, EMULATED, ROUNDED, rounded

pytest.importorskip("tvm", reason="code generation needs apache-tvm")


def layers() -> Graph:
    """Odd sizes: slices of one tap, slices through taps, strides; and what tensor cores have no kernel for."""
    net = Net(1, 34, 5, 4)
    y = [
        net.relu(net.conv("x", 35, 3)),
        net.conv("x", 40, 1),
        net.conv(net.conv("x", 34, 1, groups=34), 6, 3, stride=2),
    ]
    return net.graph(*y)


def test_numbers_are_rounded_as_the_hardware_does() -> None:
    """Ten bits after the first, halves away from zero; what is not finite stays."""
    e = 2.0**-10
    given = np.array([1, 1 + e / 2, 1 + e / 2 - 2**-23, -1 - e / 2, 3 + 2 * e, np.inf, -np.inf, 0], np.float32)
    wanted = np.array([1, 1 + e, 1, -1 - e, 3 + 2 * e, np.inf, -np.inf, 0], np.float32)
    assert np.array_equal(tf32(given), wanted)
    assert np.isnan(tf32(np.array([np.nan], np.float32)))[0]
    words = pairs(np.array([[1, -2], [2, 0.5]], np.float32))
    assert words.view(np.uint32).tolist() == [[0x40003C00, 0x3800C000]]  # 1 and 2, -2 and 1/2


@pytest.mark.parametrize("mode", ROUNDED)
def test_precisions_of_tensor_cores_are_refused_elsewhere(mode: str) -> None:
    for name in ("opencl", "cuda:sm_75", "x86-avx2", "native"):
        with pytest.raises(
            InputError, match=rf"precision {mode}: target .* no tensor cores .* one of {', '.join(ABLE)}"
        ):
            target_for(name, mode)


def test_nobody_gets_them_unasked() -> None:
    for mode in ("f32", "auto"):
        plan = codegen.show_plan(layers(), "cuda:sm_90", precision=codegen.Precision(mode))
        assert "tf32" not in plan
        assert "f16" not in plan
    plan = codegen.show_plan(layers(), "cuda:sm_90", precision=codegen.Precision("f16"))
    assert len(re.findall(r"^ *\d+ +f16\{", plan, re.MULTILINE)) == 3
    assert len(re.findall(r"^ *\d+ +conv\{kind=direct", plan, re.MULTILINE)) == 1


class TestOnGpus:
    """What takes PoCL, Oclgrind or nvcc."""

    pytestmark = gpu.marks()  # skipped where one of these is missing, which Python alone does not bring

    @pytest.mark.parametrize("mode", ROUNDED)
    def test_lanes_have_the_words_that_they_should(self, mode: str) -> None:
        """Next to torch on rounded numbers, for several tiles, whole reductions and shared ones."""
        net = Net(1, 34, 5, 4)
        graph = net.graph(net.relu(net.conv("x", 35, 3)), net.conv("x", 40, 1), net.conv("x", 6, 3, stride=2))
        x = np.random.default_rng(0).standard_normal((1, 34, 5, 4)).astype(np.float32)
        library = gpu.built(graph, EMULATED, gpu.every_choice(EMULATED, 3), mode)
        for have, want, plain in zip(
            gpu.run(library, x), rounded(graph, mode, x), evaluate(graph, {"x": x}), strict=True
        ):
            assert np.abs(have - want).max() <= 2e-6 * np.abs(want).max()
            assert np.abs(have - plain).max() > 5e-5 * np.abs(plain).max()  # they are rounded

    def test_words_are_not_raced_for(self, tmp_path: Path) -> None:
        net = Net(1, 3, 3, 2)
        graph, x = net.graph(net.conv("x", 5, 3)), np.random.default_rng(0).standard_normal((1, 3, 3, 2))
        library = gpu.built(graph, EMULATED, lambda spec, *_: gpu.candidates(spec, EMULATED)[0], "f16")
        (found,), log = gpu.interpreted(library, tmp_path, x.astype(np.float32))
        assert not log
        (want,) = rounded(graph, "f16", x.astype(np.float32))
        assert np.abs(found - want).max() <= 2e-6 * np.abs(want).max()

    @pytest.mark.parametrize(("number", "mode"), [(0, "tf32"), (1, "f16"), (2, "tf32"), (3, "f16")])
    def test_cubins_hold_the_instruction_and_keep_numbers_in_registers(self, number: int, mode: str) -> None:
        target = ABLE[number % 3]
        library = gpu.built(layers(), target, gpu.every_choice(target, 3 * number), mode)
        shape = {"tf32": "m16n8k8.row.col.f32.tf32", "f16": "m16n8k16.row.col.f32.f16"}[mode]
        assert f"mma.sync.aligned.{shape}" in library.code.source
        for name, used in library.code.resources.items():
            assert not used.spilled, (name, used)
            assert used.shared <= GPUS[target].shared, (name, used)

    def test_a_library_says_how_far_it_is_from_float32(self) -> None:
        """Compared where there is a device; else it says that it was not."""
        net = Net(1, 16, 3, 3)
        graph = net.graph(net.conv("x", 8, 1))
        here = build(graph, _target(EMULATED), precision="tf32").metadata
        assert here.precision == "tf32"
        assert any("outputs in tf32 differ from those in f32 by" in note for note in here.notes)
        away = build(graph, "cuda:sm_80", precision="tf32").metadata
        assert any("not compared with f32, as this machine lacks" in note for note in away.notes)
        assert "tf32: 1 layers multiply in tf32 and add up in f32" in away.notes


def _target(target: Target) -> str:
    return target  # type: ignore[return-value]  # a target in the place of its name
