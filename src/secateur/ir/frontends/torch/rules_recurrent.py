"""Rules of recurrent layers, and of cells, which are linear layers and gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from secateur.ir.graph import Array, Value

from .build import Args, Builder, Result, Rule, Skip, optional


def _reorder(array: Array, order: Sequence[int]) -> Array:
    """Gates of a stacked recurrent weight in another order."""
    return np.concatenate([np.split(array, len(order))[g] for g in order])


# torch has i f g o and ONNX i o f g; torch has r z n and ONNX z r n.
_GATES: Mapping[str, tuple[int, ...]] = MappingProxyType({"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)})


def _states(b: Builder, hx: Any, layer: int, ways: int) -> list[Value | None]:
    """Initial states of one layer; zeros are the default and need no input."""
    states: list[Value | None] = []
    for state in hx:
        array = b.array(state)
        if array is not None and not array.any():
            states.append(None)
        else:
            begin, end = layer * ways, (layer + 1) * ways
            states.append(state if state.shape[0] == ways else b.slice(state, 0, begin, end))
    return states


def _recurrent(op: str, **attrs: str | int) -> Rule:
    def rule(b: Builder, a: Args) -> Result:
        if "batch_sizes" in a:
            raise Skip("packed sequences")
        if a.train:
            raise Skip("a recurrent layer in train mode")
        ways, x = 2 if a.bidirectional else 1, a.input
        hx = a.hx if isinstance(a.hx, list | tuple) else [a.hx]
        a.shown("dropout")  # between layers, of which there may be one
        step = 4 if a.has_biases else 2
        hidden = a.params[1].shape[1]
        if len(a.params) != step * ways * a.num_layers or a.params[1].shape[0] != hidden * len(_GATES[op]):
            raise Skip("projections")
        x = b.transpose(x, (1, 0, 2)) if a.batch_first else x
        finals: list[list[Value]] = [[], []]
        for layer in range(a.num_layers):
            if layer and a.dropout:
                x = b.emit("dropout", [x], p=float(a.dropout))
            weights = _stacked(b, a.params[layer * step * ways : (layer + 1) * step * ways], op, step, ways)
            states = _states(b, hx, layer, ways)
            direction = "bidirectional" if ways == 2 else "forward"
            y, *last = b.emit_many(
                op, optional(x, *weights, *states), len(hx) + 1, hidden=hidden, direction=direction, **attrs
            )
            steps, _, batch, _ = y.shape
            x = b.reshape(b.transpose(y, (0, 2, 1, 3)), (steps, batch, ways * hidden))
            for found, value in zip(finals, last, strict=False):
                found.append(value)
        x = b.transpose(x, (1, 0, 2)) if a.batch_first else x
        joined = [v[0] if len(v) == 1 else b.emit("concat", v, axis=0) for v in finals if v]
        return (x, *joined)

    return rule


def _stacked(b: Builder, params: Sequence[Value], op: str, step: int, ways: int) -> list[Value | None]:
    """Weights of one layer in ONNX's layout: w[D, G*H, I], r[D, G*H, H], b[D, 2*G*H]."""
    arrays = [b.array(p) for p in params]
    if any(array is None for array in arrays):
        raise Skip("recurrent weights that are computed")
    turned = [_reorder(array, _GATES[op]) for array in arrays if array is not None]
    columns = [turned[i::step] for i in range(step)]
    joined = [np.stack(columns[0]), np.stack(columns[1])]
    if step == 4:
        joined.append(np.stack([np.concatenate(pair) for pair in zip(columns[2], columns[3], strict=True)]))
    names = [params[i].name for i in range(len(joined))]
    return [b.add_weight(f"{name}.{op}", array) for name, array in zip(names, joined, strict=True)]


# Cells. Their gates stand one after the other in the rows of both weights.


def _sums(b: Builder, x: Value, h: Value, a: Args) -> tuple[Value, Value]:
    """What a cell adds up of its input and of its state."""
    bias = (a.b_ih, a.b_hh)
    rows = [
        b.emit("linear", [v, w, *([one] if one is not None else [])], transposed=False)
        for v, w, one in zip((x, h), (a.w_ih, a.w_hh), bias, strict=True)
    ]
    return rows[0], rows[1]


def _gates(b: Builder, x: Value, count: int) -> tuple[Value, ...]:
    return b.emit_many("split", [x], count, axis=1, sizes=(x.shape[1] // count,) * count)


def _rnn_cell(activation: str) -> Rule:
    return lambda b, a: b.emit(activation, [b.emit("add", list(_sums(b, a.input, a.hx, a)))])


def _gru_cell(b: Builder, a: Args) -> Value:
    x, h = _sums(b, a.input, a.hx, a)
    (xr, xz, xn), (hr, hz, hn) = _gates(b, x, 3), _gates(b, h, 3)
    reset = b.emit("sigmoid", [b.emit("add", [xr, hr])])
    keep = b.emit("sigmoid", [b.emit("add", [xz, hz])])
    new = b.emit("tanh", [b.emit("add", [xn, b.emit("mul", [reset, hn])])])
    return b.emit("add", [new, b.emit("mul", [keep, b.emit("sub", [a.hx, new])])])


def _lstm_cell(b: Builder, a: Args) -> Result:
    h, c = a.hx
    i, f, g, o = _gates(b, b.emit("add", list(_sums(b, a.input, h, a))), 4)
    i, f, o = (b.emit("sigmoid", [gate]) for gate in (i, f, o))
    c = b.emit("add", [b.emit("mul", [f, c]), b.emit("mul", [i, b.emit("tanh", [g])])])
    return b.emit("mul", [o, b.emit("tanh", [c])]), c


RECURRENT: Mapping[str, Rule] = MappingProxyType(
    {
        "lstm": _recurrent("lstm"), "gru": _recurrent("gru", linear_before_reset=1),
        "rnn_tanh": _recurrent("rnn", activation="tanh"), "rnn_relu": _recurrent("rnn", activation="relu"),
        "lstm_cell": _lstm_cell, "gru_cell": _gru_cell,
        "rnn_tanh_cell": _rnn_cell("tanh"), "rnn_relu_cell": _rnn_cell("relu"),
    }
)  # fmt: skip
