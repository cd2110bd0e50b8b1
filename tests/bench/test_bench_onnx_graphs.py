"""The script that judges small graphs by ONNX Runtime: it must see what is right and what is wrong."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import secateur
from bench.reach import onnx_graphs, onnx_reference, onnx_tables, onnx_tables_whole


def test_the_tables_are_models() -> None:
    cases = onnx_tables_whole.extend(onnx_tables.tables()).cases
    assert len(cases) > 400
    for name in list(cases)[::40]:
        onnx.shape_inference.infer_shapes(cases[name][0](), strict_mode=True)


def test_a_leg_is_right_and_says_when_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    make, feeds, budget = onnx_tables.tables().cases["pad fewer constant"]
    case = onnx_graphs.Case("pad", make, feeds, budget, trust=True)
    assert onnx_graphs.leg(case, "macs")["verdict"] == "right"
    real = onnx_reference.masked

    def unmasked(model: onnx.ModelProto, recipe: onnx_reference.Json) -> onnx.ModelProto:
        return real(model, {**recipe, "weights": {}, "mixing": []})

    monkeypatch.setattr(onnx_reference, "masked", unmasked)
    assert onnx_graphs.leg(case, "macs")["verdict"] == "wrong"


def test_what_the_recipe_names_must_be_in_the_file() -> None:
    model = onnx_tables.tables().cases["clip below"][0]()
    recipe = json.loads(secateur.compile(model, macs=0.8, trust=True).recipe.to_json())
    recipe["weights"]["elsewhere"] = {"kept": {"1": [0]}}
    with pytest.raises(onnx_reference.Unnamed, match="'elsewhere'"):
        onnx_reference.masked(model, recipe)


def test_differences() -> None:
    one = {"y": np.array([1.0, np.inf, np.nan], np.float32)}
    assert onnx_reference.difference(one, one)[0] == 0
    for other in ({"z": one["y"]}, {"y": one["y"][:2]}, {"y": np.array([1, -np.inf, np.nan], np.float32)}):
        assert onnx_reference.difference(one, other)[0] == float("inf")
    error, text = onnx_reference.difference(one, {"y": np.array([1.5, np.inf, np.nan], np.float32)})
    assert error == 0.5
    assert "'y'" in text
