"""Sizes that a file leaves open: taken as given, or as something usual, which is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import secateur
from secateur.cli import app as cli
from secateur.cli.shapes import shapes_of
from secateur.ir import InputError

F = TensorProto.FLOAT


def network(*shape: int | str, squeezed: bool = False) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {"w": (8, 3, 3, 3), "v": (4, 8, 1, 1)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Conv", ["c", "v"], ["d"])]
    nodes += [helper.make_node("Squeeze", ["d"], ["y"])] if squeezed else [helper.make_node("Relu", ["d"], ["y"])]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", F, shape)], [helper.make_tensor_value_info("y", F, None)],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_shapes_count_and_axes_stay_free(tmp_path: Path) -> None:
    slim = secateur.compile(network("N", 3, "H", "W"), macs=0.8, shapes={"x": (1, 3, 34, 18)})
    assert slim.report.before["macs"] == 32 * 16 * 8 * (27 + 4)
    assert not any("taken as" in r for r in slim.report.remarks)
    slim.save(tmp_path / "slim.onnx")
    dims = onnx.load(tmp_path / "slim.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 3, "H", "W"]


def test_what_was_guessed_or_fixed_is_told() -> None:
    (text,) = secateur.compile(network("N", 3, "H", 20), "none").report.remarks
    assert text == "H of 'x' taken as 224 for counting and timing; --shape gives another size"
    (text,) = secateur.compile(network("N", 3, 20, 20, squeezed=True), "none").report.remarks
    assert "axis 0 of input 'x' ('N') is fixed at 1" in text
    assert not secateur.compile(network("N", 3, 20, 20), "none").report.remarks


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": (1, 2)}, "no input 'z'.*its inputs: x"),
        ({"x": (1, 3, 20)}, "has 3 sizes; it takes N,3,H,W"),
        ({"x": (1, 4, 20, 20)}, "the file fixes axis 1 at 3"),
        ({"x": (1, 3, 0, 20)}, "a size below 1"),
        ({"x": (1, 3, 2, 20)}, "does not fit its inputs.*larger than the padded input"),
    ],
)
def test_shapes_that_do_not_fit(given: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        secateur.compile(network("N", 3, "H", "W"), "none", shapes=given)


def test_one_name_is_one_size() -> None:
    with pytest.raises(InputError, match="'S' two sizes, 20 and 24"):
        secateur.load(network("N", 3, "S", "S"), shapes={"x": (1, 3, 20, 24)})


def test_shapes_are_for_files() -> None:
    with pytest.raises(InputError, match="a graph has its sizes already"):
        secateur.compile(secateur.load(network(1, 3, 20, 20)), "none", shapes={"x": (1, 3, 20, 20)})


def test_options() -> None:
    assert shapes_of(["x:0:1,3,8,8", "b:2"]) == {"x:0": (1, 3, 8, 8), "b": (2,)}
    for texts in (["x"], ["x:"], [":1,2"], ["x:1,-2"], ["x:1,a"], ["x:1", "x:2"]):
        with pytest.raises(InputError, match="--shape"):
            shapes_of(texts)


def test_commands_take_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(network("N", 3, "H", "W"), path)
    for options, told in (([], True), (["--shape", "x:1,3,40,40"], False)):
        with pytest.raises(SystemExit) as ended:
            cli.app(["inspect", str(path), *options], prog_name="secateur")
        assert not ended.value.code
        assert ("taken as 224" in capsys.readouterr().err) == told
