"""Entries of a report: attributes, the JSON's names, and JSON itself."""

import json
import math
import pickle

import numpy as np
import pytest

from secateur.ir.fields import as_json
from secateur.passes.law import Verification
from secateur.passes.rewrite.layers import Row
from secateur.report.parts import Budget, Layer, Quality, Totals


def test_an_entry_answers_to_attributes_and_to_the_names_of_its_json() -> None:
    layer = Layer("conv1", "conv2d", (10, 5), (4, None), ((3, 8), None), "pruned", None)
    assert layer.widths == ((3, 8), None)
    assert layer["widths"] == [[3, 8], None]
    assert dict(layer) == layer.to_dict() == json.loads(json.dumps(layer.to_dict()))
    assert list(layer) == ["name", "op", "macs", "params", "widths", "state", "reason"]
    with pytest.raises(KeyError):
        layer["nodes"]
    assert Totals(1, 2, 3, 4).of("bytes") == 3


def test_entries_are_equal_to_what_holds_the_same() -> None:
    quality = Quality(1.0, (0.5, 0.25), 8, True)
    assert quality == {"agreement": 1.0, "top1": [0.5, 0.25], "examples": 8, "held_out": True}
    assert quality == pickle.loads(pickle.dumps(quality))
    assert quality != Quality(0.5, (0.5, 0.25), 8, True)


def test_fields_that_say_nothing_stay_out() -> None:
    assert set(Verification("exact", True, 0.0, 2, "x")) == {"law", "passed", "max_rel_err", "inputs", "reference"}
    changed = Verification("exact", True, 0.0, 2, "x", changed=("w",), distance=0.5)
    assert changed["changed"] == ["w"]
    assert Row("a", "n", "fold_bn")["pass"] == "fold_bn"


def test_json_has_no_infinity_and_no_numpy() -> None:
    assert as_json(Budget("macs", np.float64(0.5), math.inf)) == {
        "kind": "macs", "target": 0.5, "achieved": None, "gap": None,
    }  # fmt: skip
    assert type(as_json(np.int64(3))) is int
    with pytest.raises(TypeError, match="cannot hold a set"):
        as_json({1, 2})
