"""One network in one engine, inside of the environment that engines.py made for it: outputs, nothing else.

    ENVIRONMENT/bin/python bench/lib/engine_run.py ENGINE model.onnx input.npy output.npy FOLDER

Imports NumPy and the engine alone, so that it runs under each engine's own pins. What a converter writes goes to
FOLDER. One thread, float32. A failure ends with a traceback, a crash with the signal.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def _tool(program: Path, *arguments: str, folder: Path) -> None:
    """A program that an engine's package brought. Raises RuntimeError with the end of what it printed."""
    done = subprocess.run([str(program), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-400:]
        raise RuntimeError(f"{program.name} ended with {done.returncode}: {said}")


def _script(name: str) -> Path:
    """A command of this environment."""
    return Path(sys.executable).with_name(name)


def openvino(model: Path, x: Any, folder: Path) -> Any:
    """OpenVINO, from the ONNX file."""
    from openvino import Core

    core = Core()
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return core.compile_model(core.read_model(model), "CPU", config)([x])[0]


def ncnn(model: Path, x: Any, folder: Path) -> Any:
    """Ncnn, after pnnx; without half precision, which it stores weights in unless told."""
    import ncnn

    pnnx = Path(sysconfig.get_path("platlib"), "pnnx", "pnnx")  # the program itself: its Python package asks for torch
    shape = ",".join(map(str, x.shape))
    _tool(pnnx, str(model), f"inputshape=[{shape}]f32", "fp16=0", "device=cpu", folder=folder)
    net = ncnn.Net()
    net.opt.num_threads = 1
    for name in ("packed", "storage", "arithmetic"):
        setattr(net.opt, f"use_fp16_{name}", False)
    stem = str(model.with_suffix(""))
    for status in (net.load_param(f"{stem}.ncnn.param"), net.load_model(f"{stem}.ncnn.bin")):
        if status:
            raise RuntimeError(f"ncnn cannot load what pnnx wrote: {status}")
    with net.create_extractor() as extractor:
        extractor.input(net.input_names()[0], ncnn.Mat(x[0]).clone())
        status, found = extractor.extract(net.output_names()[0])
        if status:
            raise RuntimeError(f"ncnn ended with {status}")
        return np.array(found)[None]


def mnn(model: Path, x: Any, folder: Path) -> Any:
    """MNN, after its own converter, in high precision."""
    import MNN

    written = folder / "model.mnn"
    arguments = ["-f", "ONNX", "--modelFile", str(model), "--MNNModel", str(written), "--bizCode", "secateur"]
    _tool(_script("mnnconvert"), *arguments, folder=folder)
    interpreter = MNN.Interpreter(str(written))
    session = interpreter.createSession({"precision": "high", "numThread": 1, "backend": "CPU"})
    given = MNN.Tensor(x.shape, MNN.Halide_Type_Float, x, MNN.Tensor_DimensionType_Caffe)
    interpreter.getSessionInput(session).copyFrom(given)
    interpreter.runSession(session)
    result = interpreter.getSessionOutput(session)
    shape = result.getShape()
    host = np.zeros(shape, np.float32)
    copied = MNN.Tensor(shape, MNN.Halide_Type_Float, host, MNN.Tensor_DimensionType_Caffe)
    result.copyToHostTensor(copied)
    return np.array(copied.getData(), np.float32).reshape(shape)


def litert(model: Path, x: Any, folder: Path) -> Any:
    """LiteRT with its XNNPACK delegate, after onnx2tf, which lays pictures out with their channels last."""
    from ai_edge_litert.interpreter import Interpreter

    _tool(_script("onnx2tf"), "-i", str(model), "-o", str(folder), "-n", folder=folder)
    interpreter = Interpreter(str(folder / f"{model.stem}_float32.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    last = tuple(given["shape"]) != x.shape
    interpreter.set_tensor(given["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if last else x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def opencv(model: Path, x: Any, folder: Path) -> Any:
    """OpenCV's dnn module, from the ONNX file."""
    import cv2

    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromONNX(str(model))
    net.setInput(x)
    return net.forward()


def deepsparse(model: Path, x: Any, folder: Path) -> Any:
    """DeepSparse, from the ONNX file."""
    from deepsparse import Engine

    return Engine(str(model), batch_size=len(x), num_cores=1).run([x])[0]


ENGINES: dict[str, Callable[[Path, Any, Path], Any]] = {
    "openvino": openvino, "ncnn": ncnn, "mnn": mnn, "litert": litert, "opencv": opencv, "deepsparse": deepsparse,
}  # fmt: skip


def main() -> None:
    """Run the network once and keep what comes out."""
    engine, model, x, output, folder = sys.argv[1:]
    found = ENGINES[engine](Path(model), np.load(x), Path(folder))
    np.save(output, np.asarray(found))


if __name__ == "__main__":
    main()
