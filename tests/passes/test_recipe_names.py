"""A recipe names what is in the user's file, so that anybody can repeat the law with the two of them alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import secateur
from bench.reach import onnx_reference
from bench.reach.onnx_net import Build, Net, op, then
from secateur.ir.exporters.onnx.write import to_onnx


def between(build: Build, opset: int) -> onnx.ModelProto:
    g = Net(opset, x=(1, 3, 6, 6))
    y = build(g, g.conv("x", 3, 16, 1, act=""))
    return g.model(g("Conv", y, g.drawn(4, 16, 1, 1)))


def odd(g: Net, y: str) -> str:
    """Values and weights whose names the text form cannot print, and one that mixes channels."""
    y = g("Conv", y, g.drawn(16, 16, 1, 1, name="a b,(c)=#'\"d"), out="%1 = {x} [y]; z")
    return g("ReduceL2", y, axes=[1], keepdims=1, out="a (sum)")


def spread(g: Net, y: str) -> str:
    return g("Mul", y, odd(g, y))


def cast(g: Net, y: str) -> str:
    weight = g("Cast", g.const(g.rng.standard_normal((16, 16, 1, 1)), np.float16), to=onnx.TensorProto.FLOAT)
    return g("Conv", y, weight)


NETS = {
    "softmax of old operator sets": between(op("Softmax", axis=1), 11),
    "softmax of old operator sets after": between(then(op("Relu"), op("LogSoftmax", axis=1)), 9),
    "names that cannot be printed": between(spread, 13),
    "weights of nodes": between(cast, 13),
    "softmax": between(op("Softmax", axis=1), 13),
}


@pytest.mark.parametrize("name", NETS)
def test_the_law_from_the_file_and_the_recipe_alone(name: str, tmp_path: Path) -> None:
    model = NETS[name]
    slim = secateur.compile(model, macs=0.6)
    recipe = json.loads(slim.recipe.to_json())
    assert recipe["weights"]
    x = {"x": np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype(np.float32)}
    want = onnx_reference.answer(onnx_reference.masked(model, recipe), x)  # raises where the file lacks a name
    error, _ = onnx_reference.difference(want, onnx_reference.answer(to_onnx(slim.graph), x))
    assert error < 1e-5
    slim.recipe.save(tmp_path / "recipe.json")
    again = secateur.apply(tmp_path / "recipe.json", model)
    assert json.loads(again.recipe.to_json())["weights"] == recipe["weights"]
    slim.save(tmp_path / "slim.onnx")
    assert secateur.api.verify(model, tmp_path / "slim.onnx", tmp_path / "recipe.json").passed
