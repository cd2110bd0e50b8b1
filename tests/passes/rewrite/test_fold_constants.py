"""What is constant whatever the input is folded; what follows the input's sizes is not."""

from __future__ import annotations

import numpy as np

from secateur.ir import Graph, Node, Sym, Value
from secateur.passes.rewrite.fold_constants import compute_constants


def test_a_constant_that_is_repeated_as_often_as_the_input_says_stays_an_operator() -> None:
    batch = Sym(2, "N")
    x, out = Value("x", (batch, 4)), Value("y", (batch, 4))
    nodes = (
        Node("neg", ("w",), (Value("n", (1, 4)),)),
        Node("expand", ("n",), (Value("e", (batch, 4)),), {"shape": (batch, 4)}),
        Node("add", ("x", "e"), (out,)),
    )
    graph = Graph("g", (x,), nodes, ("y",), {"w": np.ones((1, 4), np.float32)})
    made = compute_constants(graph)
    assert [node.op for node in made.nodes] == ["expand", "add"]
    np.testing.assert_array_equal(made.weights["n"], -1)
