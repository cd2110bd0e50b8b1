"""The runtimes of the project's own environment, each as its documentation says is fastest for few pictures on a CPU.

    python -m bench.lib.runtimes RUNTIME FOLDER THREADS FD      what turns.Worker starts; see serving.py

What is slow to prepare is kept in the folder: TVM's libraries by the content of the network, torch.compile's code in
inductor's own cache. Engines of environments of their own are in engine_runtimes.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.lib.serving import Loaded, Place, serve


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

    return _virtual_machine(
        place, "tvm-default", lambda: relax.build(tvm_peers.read(place.onnx), tvm_peers.target())
    )  # fmt: skip


def tvm_metaschedule(place: Place) -> Loaded:
    """Relax with the schedules that metaschedule.py found, weights packed for them."""
    from bench.lib import tvm_peers

    files = tvm_peers.database(place.folder)
    return _virtual_machine(place, "tvm-metaschedule", lambda: tvm_peers.apply(place.onnx, place.folder), *files)


def _virtual_machine(place: Place, name: str, build: Callable[[], Any], *files: Path) -> Loaded:
    import tvm
    from tvm import relax

    made = place.made(name, lambda folder: build().export_library(str(folder / "model.so")), *files)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(made / "model.so")), tvm.cpu())
    main, x = machine["main"], tvm.runtime.tensor(place.x)
    return Loaded(partial(main, x), lambda outputs: [outputs.numpy()])


RUNTIMES: dict[str, Callable[[Place], Loaded]] = {
    "secateur": secateur,
    "onnxruntime": onnxruntime,
    "torch.compile": torch_compile,
    "tvm-default": tvm_default,
    "tvm-metaschedule": tvm_metaschedule,
}


if __name__ == "__main__":
    serve(RUNTIMES)
