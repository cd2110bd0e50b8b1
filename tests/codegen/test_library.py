"""Libraries: calling, saving, loading, and what is refused with a clear message."""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secateur import codegen
from secateur.codegen import runtime
from secateur.codegen.library import Library
from secateur.codegen.targets import TARGETS, get_target
from secateur.ir import InputError
from secateur.ir.exporters.torch.module import evaluate
from support.nets import CHAIN, RESIDUAL, draw
from support.network import Net

X = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)


def python(code: str, folder: Path) -> str:
    """What a process of its own prints."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def lib() -> Library:
    return codegen.build(draw(CHAIN))


def test_numpy_and_torch_by_position_and_name(lib: Library) -> None:
    want = evaluate(draw(CHAIN), {"x": X})[0]
    tensor = lib(torch.from_numpy(X))
    assert isinstance(tensor, torch.Tensor)
    for got in (lib(X), lib(x=X), lib({"x": X}), tensor.numpy(), lib(torch.from_numpy(X).requires_grad_()).numpy()):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_strided_and_read_only_inputs(lib: Library) -> None:
    want = lib(X)
    strided = np.asfortranarray(X)
    fixed = X.copy()
    fixed.flags.writeable = False
    odd = np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(X.shape)
    for x in (strided, fixed, odd, torch.from_numpy(X).to(memory_format=torch.channels_last).numpy()):
        np.testing.assert_array_equal(lib(x), want)


def test_memory_of_every_kind_is_read_right(lib: Library) -> None:
    """Strides that are negative, 0 or anything, another order of bytes, views that negate, arrays by DLPack alone."""

    class Exchanged:
        def __dlpack__(self, **options: Any) -> Any:
            return X.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return X.__dlpack_device__()

    want = lib(X)
    wide = np.repeat(np.repeat(X, 2, 3), 2, 1)[:, ::2, :, ::2]
    negated = torch.view_as_complex(torch.stack([torch.zeros_like(torch.from_numpy(X)), torch.from_numpy(-X)], -1))
    for x in (X[..., ::-1].copy()[..., ::-1], wide, X.astype(">f4"), Exchanged(), negated.conj().imag,
              torch.from_numpy(wide), X.view(np.ma.MaskedArray)):  # fmt: skip
        np.testing.assert_array_equal(np.asarray(lib(x)), want)
    one = np.broadcast_to(np.float32(1), X.shape)
    np.testing.assert_array_equal(lib(one), lib(one.copy()))


def test_results_are_not_overwritten_by_the_next_call(lib: Library) -> None:
    first = lib(X)
    kept = first.copy()
    lib(X + 1)
    np.testing.assert_array_equal(first, kept)


def test_several_libraries_and_several_outputs(lib: Library) -> None:
    graph = draw(RESIDUAL)
    graph = graph.rewrite(outputs=(*graph.outputs, "s"))
    two = codegen.build(graph)
    before = lib(X)
    found = two(X)
    assert isinstance(found, tuple)
    for got, want in zip(found, evaluate(graph, {"x": X}), strict=True):
        # Sums of large numbers that cancel differ from processor to processor: by the largest, as reports count.
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(np.abs(want).max()))
    np.testing.assert_array_equal(lib(X), before)


@pytest.mark.parametrize(("inputs", "named", "message"), [
    ((X[:, :, :4],), {}, r"\[1, 3, 4, 8\].*build the library again"), ((X.astype(np.float64),), {}, "f64.*float32"),
    ((), {}, "missing: .'x'"), ((), {"y": X}, "unknown.*'y'"), ((X, X), {}, "too many"),
    ((X[0],), {}, "was given shape"),
    ((torch.zeros(1, 3, 8, 8, dtype=torch.float16),), {}, "f16"), (("text",), {}, "was given shape"),
    ((torch.zeros(1, 3, 8, 8).to_sparse(),), {}, "sparse.*to_dense"), ((X.astype(np.complex64),), {}, "c64"),
    ((torch.zeros(1, 3, 8, 8, device="meta"),), {}, "is on meta"), ((np.zeros(X.shape, object),), {}, "given str"),
    ((None,), {}, "was given shape"), ((X.astype(">f8"),), {}, "f64"),
])  # fmt: skip
def test_wrong_inputs(lib: Library, inputs: tuple[object, ...], named: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lib(*inputs, **named)


def test_save_and_load(lib: Library, tmp_path: Path) -> None:
    lib.save(tmp_path / "a.so")
    again = codegen.load_library(tmp_path / "a.so")
    np.testing.assert_array_equal(again(X), lib(X))
    again.save(tmp_path / "b.so")
    assert codegen.load_library(tmp_path / "b.so").metadata == again.metadata
    assert sorted(os.listdir(tmp_path)) == ["a.so", "b.so"]


def test_damaged_and_foreign_files(lib: Library, tmp_path: Path) -> None:
    path = tmp_path / "a.so"
    lib.save(path)
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("weights.bin").header_offset + 200
    for bad in (good[: len(good) // 2], b"", good[:start] + bytes([good[start] ^ 255]) + good[start + 1 :]):
        path.write_bytes(bad)
        with pytest.raises(InputError, match="damaged"):
            codegen.load_library(path)
    with pytest.raises(InputError, match="cannot read"):
        codegen.load_library(tmp_path / "none.so")
    with pytest.raises(InputError, match="cannot write"):
        lib.save(tmp_path / "none" / "a.so")


def test_a_library_for_another_machine_is_refused(lib: Library, tmp_path: Path) -> None:
    other = dataclasses.replace(lib.metadata.target, name="future", features=("no_such_feature",))
    lib.metadata, kept = dataclasses.replace(lib.metadata, target=other), lib.metadata
    try:
        lib.save(tmp_path / "a.so")
    finally:
        lib.metadata = kept
    with pytest.raises(InputError, match=r"future.*no_such_feature"):
        codegen.load_library(tmp_path / "a.so")


def test_targets() -> None:
    assert get_target("native").features
    assert {t.lanes for t in TARGETS.values()} == {4, 8, 16}
    with pytest.raises(InputError, match=r"unknown target 'z80'.*x86-avx2"):
        codegen.build(draw(CHAIN), target="z80")
    with pytest.raises(InputError, match="threads"):
        codegen.build(draw(CHAIN), threads=0)


def test_code_for_another_processor_can_be_generated() -> None:
    from secateur.codegen.backends import backend_for
    from secateur.codegen.cpu_backend import CPU
    from secateur.codegen.emit.assemble import kernel
    from secateur.codegen.plan.lower import lower
    from secateur.codegen.tune.tuner import default_choice

    target = TARGETS["aarch64-neon"]
    program = lower(draw(RESIDUAL), target, 1, lambda s, *_: default_choice(s, target), backend_for(target))
    assert all(kernel(c.spec, c.choice, target, CPU.templates) is not None for c in program.calls)


def test_a_process_that_only_runs_a_library_loads_neither_compiler_nor_torch(lib: Library, tmp_path: Path) -> None:
    """And both can still come later: a torch tensor is taken, and a library is built."""
    lib.save(tmp_path / "a.so")
    np.save(tmp_path / "x.npy", X)
    code = """
import sys, numpy as np, secateur
loaded = secateur.load_library("a.so")
want = loaded(np.load("x.npy"))
compilers = {"secateur.passes", "secateur.codegen.kernels.families", "secateur.codegen.kernels.gpu.families"}
assert not {"tvm", "torch", "onnx", "scipy", *compilers} & set(sys.modules), sorted(sys.modules)
loaded.save("b.so")
import torch
tensor = loaded(torch.from_numpy(np.load("x.npy")))
assert isinstance(tensor, torch.Tensor) and np.array_equal(tensor.numpy(), want)
from support.nets import CHAIN, draw
from secateur import codegen
assert np.array_equal(codegen.build(draw(CHAIN))(np.load("x.npy")), want)
assert np.array_equal(secateur.load_library("b.so")(np.load("x.npy")), want)
"""
    python(code, tmp_path)


def test_weights_are_read_once_and_lie_where_they_are_used(tmp_path: Path) -> None:
    """32 MB of weights cost about 32 MB: neither the file, nor a copy, nor the code stays."""
    net = Net(1, 2048, 1, 1)
    codegen.build(net.graph(net.conv("x", 4096, 1))).save(tmp_path / "a.so")
    code = """
import re, secateur, secateur.codegen.runtime
def peak():
    return int(re.search("VmHWM: *([0-9]+)", open("/proc/self/status").read().replace("\\t", ""))[1]) * 1024
secateur.codegen.runtime.ffi()
before = peak()
loaded = secateur.load_library("a.so")
print((peak() - before) / (4096 * 2048 * 4))
"""
    assert 0.9 < float(python(code, tmp_path)) < 1.3


def test_threads_are_what_the_library_says_in_any_thread_and_order() -> None:
    """Libraries for one, two and many threads, called in turn from several Python threads at once."""
    graph, cores = draw(RESIDUAL), runtime.cores()
    libraries = {n: codegen.build(graph, threads=n) for n in (1, 2, 64)}
    want = libraries[1](X)
    count = runtime.ffi().get_global_func("runtime.NumThreads")
    used: list[tuple[int, int]] = []

    def work(start: int) -> None:
        for turn in range(12):
            threads = (1, 2, 64)[(start + turn) % 3]
            np.testing.assert_allclose(libraries[threads](X), want, rtol=1e-5, atol=1e-4)
            if threads > 1:
                used.append((threads, count()))
        assert runtime.cores() == cores, "the caller was bound to fewer cores"

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work, start) for start in range(3)]:
            done.result()
    assert set(used) == {(2, min(2, len(cores))), (64, len(cores))}
    work(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_after_a_run_on_two_threads_runs_too(tmp_path: Path) -> None:
    """Its parent's workers are not there to wait for, nor who holds the lock."""
    codegen.build(draw(RESIDUAL), threads=2).save(tmp_path / "a.so")
    np.save(tmp_path / "x.npy", X)
    code = """
import os, secateur, numpy as np
library, x = secateur.load_library("a.so"), np.load("x.npy")
want, before = library(x), os.sched_getaffinity(0)
library._lock().acquire()
child = os.fork()
if child == 0:
    same = all((library(x) == want).all() for _ in range(3)) and os.sched_getaffinity(0) == before
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
library._lock().release()
assert (library(x) == want).all()
"""
    python(code, tmp_path)


def test_one_thread_starts_no_pool(lib: Library, tmp_path: Path) -> None:
    """TVM's pool, once asked for, binds the caller to half of the cores."""
    lib.save(tmp_path / "a.so")
    np.save(tmp_path / "x.npy", X)
    code = """
import os, secateur, numpy as np
loaded, x = secateur.load_library("a.so"), np.load("x.npy")
def state():
    return len(os.listdir("/proc/self/task")), os.sched_getaffinity(0)
before = state()
loaded(x)
assert state() == before, (before, state())
"""
    python(code, tmp_path)


def test_loading_again_and_again_leaves_nothing(lib: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    lib.save(tmp_path / "a.so")

    def held() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("code.so")

    codegen.load_library(tmp_path / "a.so")(X)
    before = held()
    for _ in range(5):
        np.testing.assert_array_equal(codegen.load_library(tmp_path / "a.so")(X), lib(X))
    assert held() == before
    assert os.listdir(tmp_path / "scratch") == []


def test_importing_loads_no_tvm() -> None:
    assert python("import sys, secateur.codegen; print({'tvm', 'torch'} & set(sys.modules))", Path()) == "set()\n"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_profile_has_every_call_in_its_order(threads: int) -> None:
    from secateur.codegen.backends import backend_for
    from secateur.codegen.plan.lower import lower
    from secateur.codegen.tune.profile import profile
    from secateur.codegen.tune.tuner import Tuner, open_records

    graph, target = draw(RESIDUAL), codegen.get_target("native")
    calls = lower(
        graph, target, threads, Tuner(target, threads, open_records(target, None)).choose, backend_for(target)
    ).calls
    found = profile(graph, threads=threads, rounds=3)
    assert [kernel for t in found for kernel in t.kernels] == [(c.spec, c.choice) for c in calls]
    assert [t.label for t in found] == [[c.label for c in calls if c.step == i][-1] for i in range(calls[-1].step + 1)]
    assert all(t.microseconds >= 0 for t in found)
    assert sum(t.microseconds for t in found) > 0
