"""Run an ONNX file in the emulated interpreter: emulated_ort.py FILE.onnx INPUT.npy TIMES"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime


def main() -> None:
    """One thread, so many images."""
    file, given, times = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.load(given)}
    for _ in range(int(times)):
        session.run(None, feed)


if __name__ == "__main__":
    main()
