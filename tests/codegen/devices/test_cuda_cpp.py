"""The C++ program that runs libraries for CUDA, on a stand-in for NVIDIA's driver: it needs g++, and no GPU."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from secateur.codegen.devices.code import Code
from secateur.codegen.gpu_library import GpuLibrary
from secateur.codegen.metadata import Metadata, Port
from secateur.codegen.targets import GPUS
from support.cuda import CODE

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the example is C++, and needs g++")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, the stand-in in a folder of its own, and in another one a file that is not a driver."""
    folder = tmp_path_factory.mktemp("cuda")
    subprocess.run(["g++", "-std=c++17", ROOT / "examples/cpp/cuda.cc", "-o", folder / "cuda", "-ldl"], check=True)
    for name in ("driver", "none"):
        (folder / name).mkdir()
    (folder / "none/libcuda.so.1").touch()
    stand_in = ROOT / "tests/support/cuda_driver.cc"
    subprocess.run(["g++", "-shared", "-fPIC", stand_in, "-o", folder / "driver/libcuda.so.1"], check=True)
    return folder / "cuda"


def run(
    program: Path, target: str, folder: Path, driver: str = "driver", code: Code = CODE
) -> subprocess.CompletedProcess[str]:
    """The program on two launches that add 3 each."""
    ports = (Port("x", (5,), "f32"),), (Port("y", (4,), "f32"),)
    GpuLibrary(Metadata("net", GPUS[target], 1, *ports, code.arena_words, {}), code).save(folder / "a.lib")
    np.arange(5, dtype=np.float32).tofile(folder / "x.bin")
    env = {"LD_LIBRARY_PATH": str(program.parent / driver)}
    command = [program, folder / "a.lib", folder / "x.bin", "--output", folder]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_launches_run_in_order(program: Path, tmp_path: Path) -> None:
    done = run(program, "cuda:sm_90", tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.fromfile(tmp_path / "output0.bin", np.float32).tolist() == [7, 8, 9, 10]


def test_what_is_missing_is_said(program: Path, tmp_path: Path) -> None:
    done = run(program, "cuda:sm_80", tmp_path)
    assert (done.returncode, "this machine lacks a GPU that runs code for sm_80" in done.stderr) == (1, True)
    done = run(program, "opencl", tmp_path)
    assert "was built for opencl, not for cuda" in done.stderr
    done = run(program, "cuda:sm_90", tmp_path, "none")
    assert "this machine lacks NVIDIA's driver (libcuda.so.1)" in done.stderr


def test_what_the_driver_refuses_is_said_in_its_words(program: Path, tmp_path: Path) -> None:
    done = run(program, "cuda:sm_90", tmp_path, code=replace(CODE, binary=b"other"))
    assert done.returncode == 1
    assert "the GPU cannot run the library: cuModuleLoadData says 'device kernel image is invalid'" in done.stderr
