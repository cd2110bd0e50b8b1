"""Which pixels a resize reads, compared with ONNX Runtime and torch, to the last bit of a position."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn import functional as f

from secateur.codegen.plan.sampling import INVERSE, Taps, taps
from secateur.ir.exporters.torch.functional_resize import resize

SIZES = (1, 2, 3, 7, 10, 16, 33)
SCALES = (0.3, 0.6, 0.9, 1.1, 1.2, 1.7, 2.0, 3.0, 1 / 3, 1.0999999)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")


def applied(x: np.ndarray, each: Taps | None) -> np.ndarray:
    return x if each is None else np.array([sum(x[i] * w for i, w in one) for one in each], np.float32)


def cases(mode: str, coordinate: str, rounding: str) -> list[tuple[int, int, dict[str, Any]]]:
    """(size, size of the result, attributes) by scales and by sizes; the second axis is doubled."""
    attrs = {"mode": mode, "coordinate": coordinate, "rounding": rounding}
    found = []
    for size in SIZES:
        outs = {float(s): int(np.floor(np.float32(size) * s)) for s in map(np.float32, SCALES)}
        found += [(size, out, {**attrs, "size": None, "scales": (s, 2.0)}) for s, out in outs.items() if out]
        found.append((size, 2 * size + 5, {**attrs, "size": (2 * size + 5, 2), "scales": None}))
    return found


@pytest.mark.parametrize("coordinate", COORDINATES)
@pytest.mark.parametrize(
    ("mode", "rounding"), [*(("nearest", r) for r in NEAREST), ("linear", "floor"), ("cubic", "floor")]
)
def test_taps_are_those_of_onnx_runtime(mode: str, rounding: str, coordinate: str) -> None:
    """One session for all sizes: what it is resized to is an input. Our function of torch gives the same."""
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinate}
    if mode == "nearest":
        attributes["nearest_mode"] = rounding
    for by in ("scales", "size"):
        node = helper.make_node("Resize", ["x", "", "n"] if by == "scales" else ["x", "", "", "n"], ["y"], **attributes)
        kind = TensorProto.FLOAT if by == "scales" else TensorProto.INT64
        value: Any = helper.make_tensor_value_info
        graph = helper.make_graph([node], "g", [value("x", TensorProto.FLOAT, ["a", "b"]), value("n", kind, [2])],
                                  [value("y", TensorProto.FLOAT, ["c", "d"])])  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for size, out, a in cases(mode, coordinate, rounding):
            if a[by] is None:
                continue
            x = np.random.default_rng(size).standard_normal((size, 1), np.float32)
            n = np.array(a[by], np.float32 if by == "scales" else np.int64)
            (want,) = session.run(None, {"x": x, "n": n})
            found = applied(x[:, 0], taps(a, (size, 1), (out, 2))[0])
            np.testing.assert_allclose(found, want[:, 0], atol=1e-5, err_msg=f"{size} to {out}: {a}")
            ours = resize(
                torch.from_numpy(x), mode, a["size"], a["scales"], coordinate, rounding
            )  # fmt: skip
            np.testing.assert_allclose(ours[:, 0].numpy(), want[:, 0], atol=1e-5, err_msg=f"{size} to {out}: {a}")


@pytest.mark.parametrize(
    ("mode", "coordinate", "rounding"),
    [("nearest", "asymmetric", "floor"), ("nearest-exact", "half_pixel", "round_prefer_ceil")],
)
def test_nearest_pixels_are_those_of_torch(mode: str, coordinate: str, rounding: str) -> None:
    """torch multiplies by 1 / scale where ONNX Runtime divides: 17 * 1.2 / 1.2 is 17 in one of them only."""
    attrs = {"mode": "nearest", "coordinate": coordinate, "rounding": rounding, INVERSE: True}
    for size, scale in itertools.product(SIZES, (*SCALES, None)):
        out = 2 * size + 5 if scale is None else math.floor(size * scale)
        if not out:
            continue
        target = {"size": (out, 2)} if scale is None else {"scale_factor": (scale, 2.0)}
        x = torch.arange(size, dtype=torch.float32).reshape(1, 1, size, 1)
        want = f.interpolate(x, mode=mode, **target)[0, 0, :, 0].numpy()  # type: ignore[arg-type]
        a = {**attrs, "size": target.get("size"), "scales": target.get("scale_factor")}
        found = applied(x[0, 0, :, 0].numpy(), taps(a, (1, 1, size, 1), (1, 1, out, 2))[2])
        np.testing.assert_array_equal(found, want, err_msg=f"{size} to {out}: {a}")


def test_what_keeps_its_shape_is_not_resampled() -> None:
    attrs = {"mode": "linear", "coordinate": "half_pixel", "rounding": "floor", "size": None, "scales": (1.1, 1.0)}
    assert taps(attrs, (1, 2, 4, 5), (1, 2, 4, 5)) == [None] * 4, "whatever the scales, as ONNX Runtime has it"
    assert taps(attrs, (1, 2, 10, 5), (1, 2, 11, 5))[3] is None
