"""The C++ example: a library runs without Python, and gives what Python gets from it, to the bit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secateur.codegen.targets import native
from support.network import Net

pytest.importorskip("tvm", reason="code generation needs apache-tvm")
FEATURE = native().features[-1]
ARCHITECTURE = native().triple.partition("-")[0].encode()
EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    out = tmp_path_factory.mktemp("cpp") / "run"
    subprocess.run(["bash", str(EXAMPLE / "build.sh"), sys.executable, str(out)], check=True)
    return out


@pytest.fixture(scope="module", params=[1, 2])
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray, np.ndarray]:
    from secateur import codegen

    net = Net(1, 3, 12, 12)
    graph = net.graph(net.head(net.relu(net.bn(net.conv(net.conv("x", 20), 20, groups=20)))))
    built = codegen.build(graph, threads=request.param)
    path = tmp_path_factory.mktemp("library") / "a lib.so"
    built.save(path)
    x = np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)
    return path, x, built(x)


def test_cpp_gives_the_same_bits(program: Path, library: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path, x, want = library
    x.tofile(tmp_path / "x.bin")
    command = [str(program), str(path), str(tmp_path / "x.bin"), "--output", str(tmp_path), "--repeats", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.fromfile(tmp_path / "output0.bin", np.float32).reshape(want.shape), want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-30], "damaged"),
        (lambda b: b"not a library", "damaged"),
        (lambda b: b.replace(f'"{FEATURE}"'.encode(), f'"{"x" * len(FEATURE)}"'.encode()), "this machine lacks xx"),
        (lambda b: b.replace(ARCHITECTURE, b"z" * len(ARCHITECTURE)), "this machine lacks an zzz"),
    ],
)
def test_cpp_refuses_what_is_damaged_or_for_another_machine(
    program: Path, library: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path, change: object, message: str
) -> None:
    path, x, _ = library
    (tmp_path / "bad.so").write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    x.tofile(tmp_path / "x.bin")
    done = subprocess.run(
        [str(program), str(tmp_path / "bad.so"), str(tmp_path / "x.bin")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr


def test_cpp_refuses_an_input_of_the_wrong_size(
    program: Path, library: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(40))
    done = subprocess.run([str(program), str(library[0]), str(tmp_path / "x.bin")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "has 40 bytes, the library takes 1728" in done.stderr
