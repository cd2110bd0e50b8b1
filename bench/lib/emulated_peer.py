"""Run a network by another runtime in the emulated interpreter: emulated_peer.py RUNTIME FILE INPUT.npy TIMES"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def onnxruntime(file: str, x: Any) -> Callable[[], object]:
    """An image by ONNX Runtime, from the ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)


def litert(file: str, x: Any) -> Callable[[], object]:
    """An image by LiteRT with XNNPACK, from what onnx2tf made: channels last."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file, num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    return lambda: interpreter.invoke()


def main() -> None:
    """One thread, so many images."""
    runtime, file, given, times = sys.argv[1:]
    run = {"onnxruntime": onnxruntime, "litert": litert}[runtime](file, np.load(given))
    for _ in range(int(times)):
        run()


if __name__ == "__main__":
    main()
