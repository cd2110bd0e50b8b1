"""Models run in a process of their own: answers come back, and what ends the process is one sentence."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from secateur.ir import InputError, Unsupported
from secateur.ir.frontends.onnx.nursery import WORKER, Nursery
from secateur.ir.frontends.onnx.process import Crashed, OnnxProcess, Refused
from secateur.ir.frontends.onnx.worker import receive, send


def relu_model(*dims: int | str) -> ModelProto:
    nodes = [helper.make_node("Mul", ["x", "two"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    two = helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n in "xy"]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [two])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def endless_model() -> ModelProto:
    """A loop of 2^62 rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Sin", ["a"], ["b"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("a", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, []),
         helper.make_tensor_value_info("b", TensorProto.FLOAT, [4])],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [helper.make_tensor("n", TensorProto.INT64, [], [1 << 62])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def process() -> Iterator[OnnxProcess]:
    with OnnxProcess() as process:
        yield process


def sabotaged(code: str) -> OnnxProcess:
    """A process whose runs end in ``code`` instead of an answer."""
    start = f"import os, signal, {WORKER} as w\nw.Worker.run = lambda *_: {code}\nw.main()"
    return OnnxProcess((sys.executable, "-c", start))


def test_a_file_and_its_bytes_give_the_same(process: OnnxProcess, tmp_path: Path) -> None:
    model, x = relu_model("N", 3), np.array([[-1, 2, 3], [4, -5, 6]], np.float32)
    onnx.save(model, tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", model.SerializeToString()):
        loaded = process.open(source)
        assert (loaded.inputs, loaded.outputs) == (("x",), ("y",))
        (y,) = process.run(loaded, {"x": x})
        assert y.tolist() == np.maximum(2 * x, 0).tolist()
        assert process.shapes(loaded, {"x": x[:1]}) == {"y": ((1, 3), "float32")}
        process.close(loaded)


def test_values_inside_are_given_out_on_request(process: OnnxProcess) -> None:
    loaded = process.open(relu_model(2).SerializeToString(), watch=["m"])
    y, m = process.run(loaded, {"x": np.array([-1, 1], np.float32)})
    assert (y.tolist(), m.tolist()) == ([0, 2], [-2, 2])


def test_data_beside_the_file_are_found(process: OnnxProcess, tmp_path: Path) -> None:
    model = relu_model(2)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full((), 3, np.float32), "two"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    loaded = process.open(tmp_path / "m.onnx", watch=["m"])
    assert process.run(loaded, {"x": np.array([-1, 1], np.float32)}, ["m"])[0].tolist() == [-3, 3]


def test_the_runtimes_refusal_is_handed_on_and_the_process_lives(process: OnnxProcess) -> None:
    loaded = process.open(relu_model(2).SerializeToString())
    with pytest.raises(Refused, match="dimension"):
        process.run(loaded, {"x": np.zeros(3, np.float32)})
    with pytest.raises(Refused):
        process.open(b"no model")
    assert process.run(loaded, {"x": np.ones(2, np.float32)})[0].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("os.abort()", r"'net': ONNX Runtime itself crashes while running it \(SIGABRT\), so"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "out of memory"),
        ("os._exit(7)", r"ends its process while running it \(exit code 7\)"),
    ],
)
def test_a_crash_is_one_sentence(code: str, said: str) -> None:
    with sabotaged(code) as process:
        loaded = process.open(relu_model(2).SerializeToString(), "'net'")
        with pytest.raises(Crashed, match=said) as error:
            process.run(loaded, {"x": np.ones(2, np.float32)})
        assert isinstance(error.value, InputError) and "\n" not in str(error.value)
        process.open(relu_model(2).SerializeToString())  # in a new process


def test_a_model_that_does_not_end_is_stopped() -> None:
    with OnnxProcess(patience=0.0) as process:  # the least that a limit can be is a second
        loaded = process.open(endless_model().SerializeToString(), "'endless'")
        with pytest.raises(Crashed, match=r"'endless': ONNX Runtime itself does not end"):
            process.run(loaded, {"x": np.ones(4, np.float32)})


def test_a_process_that_cannot_start_says_so() -> None:
    with (
        OnnxProcess((sys.executable, "-c", "raise SystemExit(3)")) as process,
        pytest.raises(Unsupported, match="start"),
    ):
        process.open(relu_model(2).SerializeToString())


def test_the_process_ends_with_its_object() -> None:
    process = OnnxProcess()
    process.open(relu_model(2).SerializeToString())
    child = process._child
    assert child is not None and child.returncode is None
    del process
    assert child.wait() == -signal.SIGKILL


def test_an_output_that_is_named_twice_comes_twice(process: OnnxProcess) -> None:
    model = relu_model(2)
    model.graph.output.append(model.graph.output[0])
    loaded = process.open(model.SerializeToString())
    assert [y.tolist() for y in process.run(loaded, {"x": np.array([-1, 1], np.float32)})] == [[0, 2], [0, 2]]


def test_an_interrupt_of_the_terminal_does_not_reach_it(process: OnnxProcess) -> None:
    process.open(relu_model(2).SerializeToString())
    child = process._child
    assert child is not None and os.getpgid(child.pid) != os.getpgid(0)  # the terminal signals a whole group


def test_children_of_a_nursery_are_apart_and_say_how_they_ended() -> None:
    nursery = Nursery()
    one, other = nursery.child(), nursery.child()
    with one.stdin, one.stdout, other.stdin, other.stdout:
        for child in (one, other):
            child.ready(receive(child.stdout)[0])
        os.kill(one.pid, signal.SIGSEGV)
        assert one.wait() == -signal.SIGSEGV
        send(other.stdin, {"do": "nothing", "seconds": 1.0})
        assert "nothing" in receive(other.stdout)[0]["refused"]
    assert other.wait() == 0


def test_a_nursery_that_has_ended_has_no_children() -> None:
    nursery = Nursery()
    nursery._process.kill()
    nursery._process.wait()
    with pytest.raises(OSError):
        nursery.child()
