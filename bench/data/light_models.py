"""The real zoo graphs of the onnx wheel, whose weights are one constant each, with weights drawn at random.

    python -m bench.data.light_models shufflenet out.onnx [--seed 0]

`ConstantOfShape` nodes that stand for weights become initialisers: He-normal for convolutions and fully connected
layers, sane scales, shifts and statistics for normalisation, so that no activation dies or explodes. Opset, IR version
and everything else stay as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip
Use = tuple[str, int]  # operator type and the place among its inputs


def light(name: str, seed: int = 0) -> onnx.ModelProto:
    """The model of this name (see NAMES) with drawn weights."""
    if name not in NAMES:
        raise ValueError(f"no light model is called '{name}'; there are {', '.join(NAMES)}")
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    graph = model.graph
    generator = np.random.default_rng(seed)
    initializers = {i.name: i for i in graph.initializer}
    uses = dict(_uses(graph))
    drawn: list[onnx.NodeProto] = []
    for node in graph.node:
        shape = initializers.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        use = uses.get(node.output[0])
        if shape is None or use is None:
            continue
        size = tuple(int(d) for d in numpy_helper.to_array(shape))
        weight = _draw(use, size, generator).astype(np.float32)
        drawn.append(node)
        _replace(graph, shape, numpy_helper.from_array(weight, node.output[0]))
    for node in drawn:
        graph.node.remove(node)
    _scale_statistics(graph)
    _scale_logits(model, generator)
    onnx.checker.check_model(model)
    return model


def _uses(graph: onnx.GraphProto) -> Iterator[tuple[str, Use]]:
    """What each constant is for: where it is read, followed through Unsqueeze."""
    readers = {name: (node, i) for node in graph.node for i, name in enumerate(node.input)}
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.output[0] not in readers:
            continue
        reader, place = readers[node.output[0]]
        while reader.op_type == "Unsqueeze":
            reader, place = readers[reader.output[0]]
        yield node.output[0], (reader.op_type, place)


def _draw(use: Use, size: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """A weight for this use. Two-dimensional weights are Gemm's, stored [out, in] in all of these models."""
    if use in {("Conv", 1), ("Gemm", 1)}:
        fan_in = int(np.prod(size[1:]))
        return generator.normal(0, np.sqrt((2 if use[0] == "Conv" else 1) / fan_in), size)
    if use in {("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 0), ("Mul", 1)}:
        return generator.uniform(0.5, 1.5, size)
    return generator.normal(0, 0.1, size)


def _replace(graph: onnx.GraphProto, shape: onnx.TensorProto, weight: onnx.TensorProto) -> None:
    """Put the weight where its shape stood. Files this old list initialisers among the inputs."""
    name = shape.name
    shape.CopyFrom(weight)
    for value in graph.input:
        if value.name == name:
            value.CopyFrom(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))


def _scale_statistics(graph: onnx.GraphProto) -> None:
    """Scale the running statistics to the activations that arrive, or residual networks explode.

    Follows the expected square of each value from the input on; a He-normal convolution doubles what it reads.
    """
    weights = {i.name: i for i in graph.initializer}
    square: dict[str, float] = {}
    summed: set[str] = set()  # mostly positive already, so ReLU takes little away
    for node in graph.node:
        read = [square.get(name, 1.0) for name in node.input if name not in weights]
        here = sum(read) if node.op_type in {"Sum", "Add"} else float(np.mean(read or [1.0]))
        if node.op_type == "BatchNormalization":
            for name, factor in ((node.input[3], np.sqrt(here)), (node.input[4], here)):
                scaled = numpy_helper.to_array(weights[name]) * np.float32(factor)
                weights[name].CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), name))
            here = 1.0
        if node.op_type in {"Sum", "Add"}:
            summed.add(node.output[0])
        gain = {"Conv": 2.0, "Relu": 0.5}.get(node.op_type, 1.0)
        square[node.output[0]] = here * (1.0 if node.input and node.input[0] in summed else gain)


def _scale_logits(model: onnx.ModelProto, generator: np.random.Generator) -> None:
    """Scale the last Gemm so that the softmax after it is not one class alone, which would hide any error before it."""
    import onnxruntime

    gemms = [node for node in model.graph.node if node.op_type == "Gemm"]
    if not gemms:
        return
    last = gemms[-1]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(onnx.helper.make_tensor_value_info(last.output[0], onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    weights = {i.name: i for i in model.graph.initializer}
    x = next(i for i in session.get_inputs() if i.name not in weights)
    logits = session.run([last.output[0]], {x.name: generator.normal(size=x.shape).astype(np.float32)})[0]
    producer = {name: node for node in model.graph.node for name in node.output}
    name = last.input[1]
    while name not in weights:  # some reshape the weight on the way
        name = producer[name].input[0]
    scaled = numpy_helper.to_array(weights[name]) * np.float32(2 / logits.std())
    weights[name].CopyFrom(numpy_helper.from_array(scaled, name))


def main() -> None:
    """Write one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    onnx.save(light(arguments.name, arguments.seed), arguments.output)


if __name__ == "__main__":
    main()
