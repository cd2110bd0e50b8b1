"""Libraries for arm64 run under emulation: a template of many families, two small networks, and the C++ example.

Every template and whole networks are measured by ``python -m bench.reach.emulated``.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.lib import emulated
from bench.reach.bf16_emulated import LAYERS, off, rounded
from bench.reach.emulated_cases import CASES
from secateur import codegen
from secateur.codegen.library import Library
from secateur.ir import Graph, InputError
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.frontends.torch.trace import trace
from support.planned import NETWORKS

pytest.importorskip("tvm", reason="code generation needs apache-tvm")
pytestmark = [
    pytest.mark.emulated,
    # Skipped where qemu, a cross compiler or an arm64 Python is missing: the README's test command asks for nothing but
    # Python. CI installs them, and with --emulated a skip of these tests fails there (tests/conftest.py).
    pytest.mark.skipif(emulated.missing() is not None, reason=str(emulated.missing())),
]

TARGET = "aarch64:cortex-a76"
TEMPLATES = (
    "dense 3x3, stride 2", "Winograd, odd widths", "Strassen", "groups of 4", "shuffle, split, concat",
    "block-sparse 3x3", "LSTM",
)  # fmt: skip
EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp"


def graphs() -> dict[str, Graph]:
    """What is run, by name: each case is of the families that it is named after."""
    cases = {name: trace(CASES[name].module(), CASES[name].inputs(), name=name) for name in TEMPLATES}
    return {**cases, **{name: NETWORKS[name]() for name in ("residual", "shuffled")}}


def drawn(graph: Graph) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(1)
    return tuple(rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs)


@pytest.fixture(scope="module")
def small() -> tuple[Graph, Library]:
    graph = NETWORKS["chain"]()
    return graph, codegen.build(graph, TARGET)


def test_templates_and_networks_compute_what_torch_does(tmp_path: Path) -> None:
    named = graphs()
    libraries = {name: codegen.build(graph, TARGET, threads=1 + (name == "residual")) for name, graph in named.items()}
    for name in TEMPLATES:
        assert set(CASES[name].families) <= set(libraries[name].metadata.kernels), name
    found = emulated.run([emulated.Job(libraries[name], drawn(graph)) for name, graph in named.items()], tmp_path)
    for (name, graph), outputs in zip(named.items(), found, strict=True):
        wanted = evaluate(graph, dict(zip((v.name for v in graph.inputs), drawn(graph), strict=True)))
        for got, want in zip(outputs, wanted, strict=True):
            assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max(), name


def test_the_cpp_example_cross_compiled(small: tuple[Graph, Library], tmp_path: Path) -> None:
    graph, library = small
    program, (x,) = tmp_path / "run", drawn(graph)
    subprocess.run(
        ["bash", EXAMPLE / "build.sh", emulated.FOLDER / "python", program, "aarch64-linux-gnu-g++"], check=True
    )
    library.save(tmp_path / "a.so")
    x.tofile(tmp_path / "x.bin")
    command = [emulated.FOLDER / "run", program, tmp_path / "a.so", tmp_path / "x.bin", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (want,) = evaluate(graph, {graph.inputs[0].name: x})
    got = np.fromfile(tmp_path / "output0.bin", np.float32).reshape(want.shape)
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def test_a_library_for_arm_is_refused_here(small: tuple[Graph, Library], tmp_path: Path) -> None:
    """With a sentence, before any of its code is loaded; it can be saved, copied and inspected."""
    small[1].save(tmp_path / "a.so")
    with pytest.raises(
        InputError, match=r"a\.so' was built for aarch64:cortex-a76; this machine lacks an aarch64 proc"
    ):
        codegen.load_library(tmp_path / "a.so")


def test_bfloat16_by_the_instructions_themselves(tmp_path: Path) -> None:
    """On a processor of qemu's that has them; one without says what it lacks."""
    make, shape = LAYERS["3x3, 40 to 24, 9x11"]
    layer, x = make().eval(), torch.randn(*shape)
    library = codegen.build(trace(layer, (x,)), "aarch64:neoverse-v1", precision=codegen.Precision("bf16"))
    jobs = [emulated.Job(library, (x.numpy(),))]
    assert off(rounded(layer, x), emulated.run(jobs, tmp_path, "max")[0][0]) <= 2e-6
    with pytest.raises(RuntimeError, match="this machine lacks bf16, sve"):
        emulated.run(jobs, tmp_path)
