"""One runtime with one network loaded, in a process of its own, that runs it once whenever its parent says so.

    python -m bench.lib.runtimes RUNTIME FOLDER THREADS FD      what turns.Worker starts

FOLDER is what prepare.py wrote. Over the pipe FD the worker sends ("ready", seconds, outputs) when it has loaded and
run the network, or ("failed", why); then it answers each (warm, least) with the median of its own milliseconds:
``warm`` calls that are not timed, then timed ones until ``least`` seconds are over, one at the least.

What is slow to prepare is kept in the folder: TVM's libraries by the content of the network, torch.compile's code in
inductor's own cache. Each peer runs as its documentation says is fastest for one picture in float32 on a CPU.
"""

from __future__ import annotations

import ctypes
import hashlib
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

PR_SET_PDEATHSIG = 1
Arrays = list[NDArray[Any]]
FLOAT32: Mapping[str, str] = MappingProxyType({"INFERENCE_PRECISION_HINT": "f32"})


@dataclass(frozen=True)
class Loaded:
    """Runs the network once; ``read`` turns what a run returns into arrays."""

    run: Callable[[], Any]
    read: Callable[[Any], Sequence[Any]] = lambda outputs: [outputs]


@dataclass(frozen=True)
class Place:
    """Where a network lies, and how many threads may run it."""

    folder: Path
    threads: int

    @property
    def onnx(self) -> Path:
        """The network as an ONNX file."""
        return self.folder / "model.onnx"

    @property
    def x(self) -> NDArray[np.float32]:
        """The input."""
        found: NDArray[np.float32] = np.load(self.folder / "input.npy")
        return found

    def digest(self, *files: Path) -> str:
        """Names what is made from the network and from these files."""
        total = hashlib.sha256()
        for file in (self.onnx, *files):
            total.update(file.read_bytes())
        return total.hexdigest()[:12]


def secateur(place: Place) -> Loaded:
    """Our library, from its file."""
    from secateur import load_library

    library, x = load_library(place.folder / f"secateur-{place.threads}.so"), place.x
    return Loaded(lambda: library(x))


def onnxruntime(place: Place) -> Loaded:
    """All graph optimisations, as is its default."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = place.threads, 1
    session = ort.InferenceSession(str(place.onnx), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: place.x}
    return Loaded(lambda: session.run(None, feed), list)


def openvino(place: Place, precision: Mapping[str, str] = FLOAT32) -> Loaded:
    """Compiled for latency in float32; inputs and outputs are not copied."""
    from openvino import Core

    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": place.threads, **precision}
    core, x = Core(), [place.x]
    request = core.compile_model(core.read_model(place.onnx), "CPU", config).create_infer_request()
    return Loaded(lambda: request.infer(x, share_inputs=True, share_outputs=True), lambda outputs: outputs.to_tuple())


def openvino_default(place: Place) -> Loaded:
    """As a user installs it: in bfloat16 where the processor has it."""
    return openvino(place, {})


def torch_compile(place: Place) -> Loaded:
    """The module through inductor with its weights frozen, which folds batch norm and packs for oneDNN."""
    import torch
    from torch._inductor import config

    from bench.data import torchvision_shim  # noqa: F401  a pickled network of torchvision needs its operators

    torch.set_num_threads(place.threads)
    config.freezing = True
    # prepare.py wrote this file a moment ago.
    module: Any = torch.compile(torch.load(place.folder / "module.pt", weights_only=False).eval())
    x = torch.from_numpy(place.x)

    def run() -> Any:
        with torch.no_grad():
            return module(x)

    return Loaded(run, lambda outputs: [outputs.numpy()])


def tvm_default(place: Place) -> Loaded:
    """Relax's default pipeline for a CPU: fused, not scheduled."""
    from tvm import relax

    from bench.lib import tvm_peers

    def build() -> Any:
        return relax.build(tvm_peers.read(place.onnx), tvm_peers.target())

    return _virtual_machine(place, f"tvm-default-{place.digest()}.so", build)


def tvm_metaschedule(place: Place) -> Loaded:
    """Relax with the schedules that metaschedule.py found, weights packed for them."""
    from bench.lib import tvm_peers

    name = f"tvm-metaschedule-{place.digest(*tvm_peers.database(place.folder))}.so"
    return _virtual_machine(place, name, lambda: tvm_peers.apply(place.onnx, place.folder))


def _virtual_machine(place: Place, name: str, build: Callable[[], Any]) -> Loaded:
    import tvm
    from tvm import relax

    file = place.folder / name
    if not file.exists():
        scratch = file.with_suffix(".part.so")
        build().export_library(str(scratch))
        scratch.rename(file)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(file)), tvm.cpu())
    main, x = machine["main"], tvm.runtime.tensor(place.x)
    return Loaded(lambda: main(x), lambda outputs: [outputs.numpy()])


RUNTIMES: dict[str, Callable[[Place], Loaded]] = {
    "secateur": secateur,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "openvino-default": openvino_default,
    "torch.compile": torch_compile,
    "tvm-default": tvm_default,
    "tvm-metaschedule": tvm_metaschedule,
}


def serve(channel: Connection, runtime: str, place: Place) -> None:
    """Load, then answer until the parent closes the pipe."""
    start = time.perf_counter()
    try:
        loaded = RUNTIMES[runtime](place)
        outputs: Arrays = [np.array(o) for o in loaded.read(loaded.run())]
    except Exception as error:
        channel.send(("failed", f"{type(error).__name__}: {error}"[:500]))
        return
    channel.send(("ready", time.perf_counter() - start, outputs))
    while True:
        try:
            warm, least = channel.recv()
        except EOFError:
            return
        channel.send(_turn(loaded.run, warm, least))


def _turn(run: Callable[[], Any], warm: int, least: float) -> float:
    for _ in range(warm):
        run()
    samples: list[float] = []
    while not samples or sum(samples) < least:
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples) * 1e3


def end_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies: a stopped worker would stay for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    serve(Connection(int(sys.argv[4])), sys.argv[1], Place(Path(sys.argv[2]), int(sys.argv[3])))
