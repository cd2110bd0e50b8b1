"""One network in one engine, inside of the environment that engines.py made for it: prints the least seconds of a run.

    ENVIRONMENT/bin/python bench/lib/engine_time.py deepsparse|openvino model.onnx input.npy ROUNDS

Imports NumPy and the engine alone, so that it runs under each engine's own pins. One thread, float32.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], Any]


def openvino(model: Path, x: Any) -> Run:
    """OpenVINO, from the ONNX file, with no more to do a call than it must."""
    from openvino import Core

    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    core = Core()
    request = core.compile_model(core.read_model(model), "CPU", config).create_infer_request()
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)


def deepsparse(model: Path, x: Any) -> Run:
    """DeepSparse, from the ONNX file."""
    from deepsparse import Engine

    engine = Engine(str(model), batch_size=len(x), num_cores=1)
    return lambda: engine.run([x], val_inp=False)


ENGINES = {"openvino": openvino, "deepsparse": deepsparse}


def main() -> None:
    """Time the network."""
    engine, model, x, rounds = sys.argv[1:]
    run = ENGINES[engine](Path(model), np.load(x))
    least = float("inf")
    for _ in range(int(rounds) + 2):
        start = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - start)
    print(f"seconds={least!r}")


if __name__ == "__main__":
    main()
