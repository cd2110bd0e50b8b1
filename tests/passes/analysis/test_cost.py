"""Cost: numbers worked out by hand."""

import numpy as np

from secateur.ir import OPS, Graph, Node, Value
from secateur.passes.analysis.cost import FREE, MACS, WIDTHS, Costs, CountCost, cost, totals
from support.nets import chain, residual


def single(
    op: str,
    inputs: dict[str, tuple[int, ...]],
    weights: dict[str, tuple[int, ...]],
    out: tuple[int, ...],
    **attrs: object,
) -> Costs:
    values = tuple(Value(name, shape) for name, shape in inputs.items())
    node = Node(op, (*inputs, *weights), (Value("y", out),), attrs)
    arrays = {name: np.zeros(shape, np.float32) for name, shape in weights.items()}
    return cost(Graph("one", values, (node,), ("y",), arrays))


def test_totals_of_a_chain() -> None:
    found = cost(chain())
    assert found.macs == 64 * 16 * 27 + 64 * 32 * 144 + 160
    assert found.params == 16 * 27 + 32 * 144 + 5 * 33 + 2 * 16  # scale and shift, not the running statistics
    assert found.bytes == 4 * (found.params + 2 * 16)
    assert found.nodes == 7


def test_rows_of_layers() -> None:
    rows = {row.node: row for row in cost(residual()).layers}
    assert rows["g"].op == "conv2d"
    assert rows["g"].widths == (16, 32)
    assert rows["g"].macs == 64 * 32 * 4 * 9
    assert rows["y"].params == 4 * 32 * 9
    assert "s" not in rows


def test_transposed_convolution_counts_its_input() -> None:
    found = single(
        "conv_transpose", {"x": (1, 8, 5, 5)}, {"w": (8, 3, 2, 2)}, (1, 6, 10, 10), stride=(2, 2), dilation=(1, 1),
        pad=(0, 0, 0, 0), output_padding=(0, 0), groups=2,
    )  # fmt: skip
    assert found.macs == 8 * 25 * 3 * 4
    assert found.layers[0].widths == (8, 6)


def test_products_of_activations() -> None:
    assert single("matmul", {"a": (2, 4, 5), "b": (2, 5, 7)}, {}, (2, 4, 7)).macs == 2 * 4 * 5 * 7
    found = single("einsum", {"a": (2, 3, 4), "b": (2, 4, 6)}, {}, (2, 3, 6), equation="bij,bjk->bik")
    assert found.macs == 2 * 3 * 4 * 6


def test_lstm_counts_every_step() -> None:
    found = single(
        "lstm", {"x": (7, 1, 10)}, {"w": (1, 32, 10), "r": (1, 32, 8)}, (7, 1, 1, 8), hidden=8, direction="forward"
    )
    assert found.macs == 7 * (32 * 10 + 32 * 8)
    assert found.layers[0].widths == (10, 8)


def test_constants_integers_and_buffers_are_no_parameters() -> None:
    class Origin:
        buffers = frozenset({"c2.w"})

    graph = chain()
    weights = {**graph.weights, "const.0": np.zeros(9, np.float32), "index": np.zeros(9, np.int64)}
    found = cost(graph.rewrite(weights=weights).with_note(Origin()))
    assert found.params == cost(graph).params - 32 * 144
    assert found.bytes == cost(graph).bytes + 9 * 4 + 9 * 8


def test_hollow_weights_count_as_full_ones() -> None:
    graph = chain()
    hollow = {name: np.broadcast_to(np.zeros((), w.dtype), w.shape) for name, w in graph.weights.items()}
    assert cost(graph.rewrite(weights=hollow)) == cost(graph)


def test_the_pass_leaves_a_note() -> None:
    graph = CountCost()(chain())
    assert graph.note(Costs) == cost(graph)
    assert totals(graph).layers == ()


def test_every_operator_counts_or_is_said_to_count_nothing() -> None:
    assert set(MACS) | FREE == OPS
    assert not set(MACS) & FREE
    assert set(WIDTHS) <= set(MACS)
