"""An original that disagrees with itself, as a runtime may that rewrites the file, is told from a misread one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from secateur.checks.comparison import READ, Comparison
from secateur.ir import Array, Graph, LawError
from secateur.ir.frontends.onnx.original import OnnxOriginal
from secateur.ir.frontends.onnx.process import Refused
from secateur.ir.frontends.torch.trace import trace
from secateur.run import evaluate
from support.network import Net


class Runtime:
    """Runs the graph as ONNX Runtime would, its outputs off by ``by``, and what lies inside by ``inner``."""

    reference = OnnxOriginal.reference

    def __init__(self, graph: Graph, by: float, inner: float) -> None:
        self.graph, self.by, self.inner = graph, by, inner

    def run(self, feed: Mapping[str, Array], more: float = 0.0) -> list[Array]:
        return [array * np.float32(1 + self.by) for array in evaluate(self.graph, feed)]

    def inside(self, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        found = evaluate(self.graph.rewrite(outputs=list(names)), feed)
        return {name: array * np.float32(1 + self.inner) for name, array in zip(names, found, strict=True)}

    def close(self) -> None:
        return None


def network() -> Graph:
    net = Net(1, 3, 6, 6)
    return net.graph(net.head(net.relu(net.conv("x", 8))))


def test_optimisations_of_the_runtime_are_a_remark() -> None:
    graph = network()
    found = Comparison(Runtime(graph, 1e-2, 0), graph, "'net.onnx'", READ).on([], 0)
    assert found.passed
    assert found.note is not None
    assert found.note.startswith("ONNX Runtime's own optimisations move the outputs by 9.9e-03")


def test_what_differs_without_them_too_is_misread() -> None:
    graph = network()
    with pytest.raises(LawError, match=r"'net.onnx' is misread: from conv 'conv0' on, the network"):
        Comparison(Runtime(graph, 1e-2, 1e-2), graph, "'net.onnx'", READ).on([], 0)


class Choosy(Runtime):
    """Takes the captured height alone, and counts how often it is asked."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph, 0, 0)
        self.asked = 0

    def run(self, feed: Mapping[str, Array], more: float = 0.0) -> list[Array]:
        self.asked += 1
        if next(iter(feed.values())).shape[2] != 12:
            raise Refused("a height of 12 alone")
        return super().run(feed, more)


def test_a_file_is_asked_first_for_the_sizes_that_the_original_took() -> None:
    graph = trace(torch.nn.Conv2d(3, 4, 3, padding=1).eval(), (torch.randn(2, 3, 12, 10),))
    first, second = Choosy(graph), Choosy(graph)
    read = Comparison(first, graph, "'net.onnx'", READ).on([], 0)
    kinds = [shapes for shapes in read.taken if shapes is not None]
    assert kinds
    assert "taken" not in read.to_dict()
    written = Comparison(second, graph, "'slim.onnx'", READ).on([], 0, read.taken)
    assert written.runs == read.runs
    assert second.asked == written.runs < first.asked, "no size is tried in vain again"
