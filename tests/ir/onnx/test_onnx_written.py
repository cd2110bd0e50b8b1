"""What is written of ONNX models: shape arithmetic, nodes word for word or anew, names and metadata."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.frontends.onnx.load import OnnxOrigin, load
from secateur.ir.graph import Node, Source
from secateur.ir.text import reinfer
from secateur.ir.verify import verify
from support.onnx_models import close, drawn, drop_originals, model, round_trip, run, versioned


def shaped(height: Any) -> ModelProto:
    """Flattening, shuffling and resizing through shape arithmetic, as exporters write it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Slice", ["s", "two", "four"], ["hw"]),
        helper.make_node("Unsqueeze", ["n", "zero_axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "grid", "hw"], ["target"], axis=0),
        helper.make_node("Reshape", ["c", "target"], ["g"]),
        helper.make_node("Transpose", ["g"], ["gt"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["gt", "s"], ["sh"]),
        helper.make_node("Shape", ["x"], ["sx"]),
        helper.make_node("Slice", ["sx", "two", "four"], ["big"]),
        helper.make_node("Slice", ["s", "nil", "two"], ["nc"]),
        helper.make_node("Concat", ["nc", "big"], ["sizes"], axis=0),
        helper.make_node("Resize", ["sh", "", "", "sizes"], ["y"]),
    ]
    arrays = {
        "zero": np.array(0),
        "zero_axis": np.array([0]),
        "nil": np.array([0]),
        "two": np.array([2]),
        "four": np.array([4]),
        "grid": np.array([2, 4]),
    }
    return model(nodes, {"x": ["batch", 3, height, height]}, ["y"], 13, w=drawn(8, 3, 3, 3), **arrays)


def test_shape_arithmetic_is_folded_and_axes_stay_dynamic() -> None:
    original = shaped("side")
    graph = round_trip(original, drawn(3, 3, 32, 32))
    assert [n.op for n in graph.nodes] == ["conv", "reshape", "transpose", "reshape", "resize"]
    assert [d.name for d in graph.nodes[-1].attrs["size"]] == ["side", "side"]
    assert graph.inputs[0].shape[0].name == "batch"
    assert graph.inputs[0].shape[2].name == "side"  # type: ignore[attr-defined]
    for n, side in ((1, 64), (4, 96), (2, 37)):
        x = drawn(n, 3, side, side)
        close(run(to_onnx(drop_originals(graph)), x), run(original, x))


def test_an_axis_that_cannot_be_followed_is_fixed_and_named() -> None:
    """Which axes have one element, and go, depends on the batch: so does the rank of what follows."""
    nodes = [helper.make_node("Squeeze", ["x"], ["s"]), helper.make_node("Relu", ["s"], ["y"])]
    original = model(nodes, {"x": ["N", 6]}, ["y"], 13)
    graph = load(original)
    origin = graph.note(OnnxOrigin)
    assert origin is not None
    (text,) = origin.specialised
    assert "'N'" in text
    assert "fixed at 1" in text
    x = drawn(1, 6)
    close(run(to_onnx(graph), x), run(original, x))


def test_changed_nodes_are_written_anew_and_others_verbatim() -> None:
    graph = load(shaped("side"))
    conv = graph.nodes[0]
    narrower = conv.with_attrs(stride=(1, 1))
    changed = verify(reinfer(graph.rewrite(nodes=[narrower, *graph.nodes[1:]])))
    written = to_onnx(changed)
    assert {a.name: list(a.ints) for a in written.graph.node[0].attribute}["strides"] == [1, 1]
    assert written.graph.node[2] == next(n for n in shaped("side").graph.node if n.output[0] == "gt")


def test_names_that_text_cannot_print_come_back_on_export() -> None:
    nodes = [
        helper.make_node("Conv", ["an input", "w (1)"], ["a,b"]),
        helper.make_node("Relu", ["a,b"], ["the result"]),
    ]
    original = model(nodes, {"an input": [1, 3, 4, 4]}, ["the result"], 13, **{"w (1)": drawn(2, 3, 1, 1)})
    graph = round_trip(original, drawn(1, 3, 4, 4))
    assert "w_(1)" not in graph.weights
    assert not any(" " in v for v in graph.values)
    written = to_onnx(graph)
    assert written.graph.initializer[0].name == "w (1)"
    assert written.graph.output[0].name == "the result"


def test_metadata_stays() -> None:
    original = versioned(13)
    original.producer_name, original.doc_string, original.graph.doc_string = "me", "about", "inner"
    original.metadata_props.add(key="classes", value="cat,dog")
    written = to_onnx(load(original))
    assert (written.producer_name, written.doc_string, written.graph.doc_string) == ("me", "about", "inner")
    assert written.metadata_props[0].value == "cat,dog"


def test_node_names_are_unique_and_the_files_own_come_first() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="two"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    graph = load(model(nodes, {"x": [1, 3, 8, 8]}, ["y"], 13, w=drawn(4, 3, 3, 3)))
    conv, relu, last = graph.nodes
    extra = [
        Node("neg", ("a",), (dataclasses.replace(conv.out, name="n"),), {}, Source("two")),
        Node("neg", ("n",), (dataclasses.replace(conv.out, name="m"),), {}, Source("one")),
        dataclasses.replace(relu, inputs=("m",)),
    ]
    written = to_onnx(verify(graph.rewrite(nodes=[conv, *extra, last])))
    assert [n.name for n in written.graph.node] == ["one", "two_1", "one_1", "two", ""]
    run(written, drawn(1, 3, 8, 8))
