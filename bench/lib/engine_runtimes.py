"""Engines as users install them, each inside of the environment that engines.py made for it.

    ENVIRONMENT/bin/python -m bench.lib.engine_runtimes ENGINE FOLDER THREADS FD     what turns.Worker starts

Imports NumPy and the engine alone, so that it runs under each engine's own pins. What a converter writes is kept in the
folder by the content of the network. float32, inputs and outputs copied as little as the engine allows.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bench.lib.engines import STAMP
from bench.lib.serving import Loaded, Place, serve

FLOAT32: Mapping[str, str] = MappingProxyType({"INFERENCE_PRECISION_HINT": "f32"})


def _tool(program: Path, *arguments: str, folder: Path) -> None:
    """A program that an engine's package brought. Raises RuntimeError with the end of what it printed."""
    done = subprocess.run([str(program), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-400:]
        raise RuntimeError(f"{program.name} ended with {done.returncode}: {said}")


def _converted(place: Place, name: str, convert: Callable[[Path], None]) -> Path:
    """The folder with what this environment's converter makes of the network."""
    return place.made(name, convert, Path(sys.prefix, STAMP))


def openvino(place: Place, precision: Mapping[str, str] = FLOAT32) -> Loaded:
    """OpenVINO, compiled for latency in float32; inputs and outputs are not copied."""
    from openvino import Core

    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": place.threads, **precision}
    core, x = Core(), [place.x]
    request = core.compile_model(core.read_model(place.onnx), "CPU", config).create_infer_request()
    return Loaded(lambda: request.infer(x, share_inputs=True, share_outputs=True), lambda outputs: outputs.to_tuple())


def openvino_default(place: Place) -> Loaded:
    """As a user installs it: in bfloat16 where the processor has it."""
    return openvino(place, {})


def ncnn(place: Place) -> Loaded:
    """Ncnn, after pnnx; without half precision, which it stores weights in unless told. One picture after another."""
    import ncnn

    x = place.x
    pnnx = Path(sysconfig.get_path("platlib"), "pnnx", "pnnx")  # the program itself: its Python package asks for torch

    def convert(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(place.onnx.read_bytes())  # pnnx writes next to what it reads
        shape = ",".join(map(str, (1, *x.shape[1:])))
        _tool(pnnx, "model.onnx", f"inputshape=[{shape}]f32", "fp16=0", "device=cpu", folder=folder)

    made = _converted(place, "ncnn", convert)
    net = ncnn.Net()
    net.opt.num_threads = place.threads
    for name in ("packed", "storage", "arithmetic"):
        setattr(net.opt, f"use_fp16_{name}", False)
    for status in (net.load_param(str(made / "model.ncnn.param")), net.load_model(str(made / "model.ncnn.bin"))):
        if status:
            raise RuntimeError(f"ncnn cannot load what pnnx wrote: {status}")
    given, wanted = net.input_names()[0], net.output_names()[0]

    def one(picture: Any) -> Any:
        with net.create_extractor() as extractor:
            extractor.input(given, picture)
            status, found = extractor.extract(wanted)
            if status:
                raise RuntimeError(f"ncnn ended with {status}")
            return np.array(found)

    pictures = [ncnn.Mat(picture).clone() for picture in x]
    return Loaded(lambda: [one(picture) for picture in pictures], lambda outputs: [np.stack(outputs)])


def mnn(place: Place) -> Loaded:
    """MNN, after its own converter, in high precision."""
    import MNN

    def convert(folder: Path) -> None:
        # The command `mnnconvert` does the same, then has pip install a package that reports its use.
        command = "import sys, MNN, _tools; _tools.mnnconvert(sys.argv)"
        arguments = ["-f", "ONNX", "--modelFile", str(place.onnx), "--MNNModel", "model.mnn", "--bizCode", "secateur"]
        _tool(Path(sys.executable), "-c", command, *arguments, folder=folder)

    x = place.x
    interpreter = MNN.Interpreter(str(_converted(place, "mnn", convert) / "model.mnn"))
    session = interpreter.createSession({"precision": "high", "numThread": place.threads, "backend": "CPU"})
    given = MNN.Tensor(x.shape, MNN.Halide_Type_Float, x, MNN.Tensor_DimensionType_Caffe)
    entry, result = interpreter.getSessionInput(session), interpreter.getSessionOutput(session)
    shape = result.getShape()
    host = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), MNN.Tensor_DimensionType_Caffe)

    def run() -> Any:
        entry.copyFrom(given)
        interpreter.runSession(session)
        result.copyToHostTensor(host)
        return host

    return Loaded(run, lambda found: [np.array(found.getData(), np.float32).reshape(shape)])


def litert(place: Place) -> Loaded:
    """LiteRT with its XNNPACK delegate, after onnx2tf, which lays pictures out with their channels last."""
    from ai_edge_litert.interpreter import Interpreter

    x = place.x

    def convert(folder: Path) -> None:
        _tool(Path(sys.executable).with_name("onnx2tf"), "-i", str(place.onnx), "-o", str(folder), "-n", folder=folder)

    file = _converted(place, "litert", convert) / f"{place.onnx.stem}_float32.tflite"
    interpreter = Interpreter(str(file), num_threads=place.threads)
    interpreter.allocate_tensors()
    given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    last = tuple(given["shape"]) != x.shape
    picture = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if last else x

    def run() -> Any:
        interpreter.set_tensor(given["index"], picture)
        interpreter.invoke()
        return interpreter.get_tensor(wanted)

    return Loaded(run)


def executorch(place: Place) -> Loaded:
    """ExecuTorch with its XNNPACK backend, from the program that torch.export made."""
    import executorch.extension.pybindings.portable_lib as library
    import torch
    from executorch.runtime import Runtime

    def convert(folder: Path) -> None:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = torch.export.load(place.folder / "program.pt2")
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        (folder / "model.pte").write_bytes(lowered.to_executorch().buffer)

    library._unsafe_reset_threadpool(place.threads)
    file = _converted(place, "executorch", convert) / "model.pte"
    method = Runtime.get().load_program(file).load_method("forward")
    given = [torch.from_numpy(place.x)]
    return Loaded(lambda: method.execute(given), lambda outputs: [o.numpy() for o in outputs])


def opencv(place: Place) -> Loaded:
    """OpenCV's dnn module, from the ONNX file."""
    import cv2

    cv2.setNumThreads(place.threads)
    net, x = cv2.dnn.readNetFromONNX(str(place.onnx)), place.x

    def run() -> Any:
        net.setInput(x)
        return net.forward()

    return Loaded(run)


def deepsparse(place: Place) -> Loaded:
    """DeepSparse, from the ONNX file."""
    from deepsparse import Engine

    x = place.x
    engine = Engine(str(place.onnx), batch_size=len(x), num_cores=place.threads)
    return Loaded(lambda: engine.run([x], val_inp=False), list)


RUNTIMES: dict[str, Callable[[Place], Loaded]] = {
    "openvino": openvino, "openvino-default": openvino_default, "ncnn": ncnn, "mnn": mnn, "litert": litert,
    "executorch": executorch, "opencv": opencv, "deepsparse": deepsparse,
}  # fmt: skip


if __name__ == "__main__":
    serve(RUNTIMES)
