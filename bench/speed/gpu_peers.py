"""Ways to run a network on a GPU: a library of ours, and PyTorch with cuDNN in channels-last, as it is and faster."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.lib import serving
from bench.lib.turns import LEAST, WARM, Sample
from secateur.codegen.gpu_library import GpuLibrary

WARM_UP = 3  # calls before PyTorch records a graph: cuDNN tries its algorithms in the first


@dataclass(frozen=True)
class OnDevice:
    """One way to run a network whose input lies on the device: ``launch`` need not wait until it is done."""

    launch: Callable[[], object]
    wait: Callable[[], None]
    outputs: Callable[[], list[Any]]

    def turn(self, warm: int = WARM, least: float = LEAST) -> Sample:
        """Milliseconds of one run in the median, after ``warm`` that do not count, until ``least`` seconds are over."""
        return Sample(*serving.turn(self._run, warm, least))

    def _run(self) -> None:
        self.launch()
        self.wait()


def ours(library: GpuLibrary, x: Any) -> OnDevice:
    """A library on its device. Raises InputError where there is none."""
    found = library(x)
    session, outputs = library.session, list(found) if isinstance(found, tuple) else [found]
    return OnDevice(session.launch, session.wait, lambda: outputs)


def torch_ways(module: Any, x: Any, mode: str, device: str = "cuda") -> dict[str, OnDevice]:
    """PyTorch's ways on a device, in the precision: f32 without TF32, tf32, or all of it in f16.

    On a processor, where there are no CUDA graphs, the first alone.
    """
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = mode == "tf32"
    dtype = torch.float16 if mode == "f16" else torch.float32
    there = copy.deepcopy(module).eval().to(device=device, dtype=dtype, memory_format=torch.channels_last)
    given = torch.from_numpy(x).to(device=device, dtype=dtype)
    given = given.contiguous(memory_format=torch.channels_last) if given.ndim == 4 else given

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def called(run: Any) -> OnDevice:
        with torch.inference_mode():
            for _ in range(WARM_UP):
                found = run(given)
        wait()
        return OnDevice(lambda: _inference(run, given), wait, lambda: [found.float().cpu().numpy()])

    found = {"torch": called(there)}
    if device == "cuda":
        found["torch, CUDA graph"] = _recorded(there, given, wait)
        found["torch.compile"] = called(torch.compile(there))
        found["torch.compile, CUDA graph"] = called(torch.compile(there, mode="reduce-overhead"))
    return found


def _inference(run: Any, x: Any) -> Any:
    import torch

    with torch.inference_mode():
        return run(x)


def _recorded(module: Any, x: Any, wait: Callable[[], None]) -> OnDevice:
    """By a CUDA graph of what PyTorch launches."""
    import torch

    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types for it
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            _inference(module, x)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        y = module(x)
    return OnDevice(graph.replay, wait, lambda: [np.asarray(y.float().cpu())])
