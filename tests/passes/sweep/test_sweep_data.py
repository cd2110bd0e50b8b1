"""Data that a sweep cannot use, or that a network cannot take: refused by name, never a silent NaN."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from secateur.ir import InputError, PassError
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes.coupling.couple import Couple
from secateur.passes.sweep import Examples, Gates, InputMoments
from secateur.passes.sweep.run import sweep
from support.network import Net
from support.swept import all_needs, data, network


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no example"),
        ([np.zeros((0, 3, 6, 6), np.float32)], "no example"),
        ([np.zeros((4, 3, 5, 6), np.float32)], r"shape \[4, 3, 5, 6\]"),
        ([np.full((4, 3, 6, 6), np.nan, np.float32)], "NaN"),
        ([{"y": np.zeros((4, 3, 6, 6), np.float32)}], "unknown"),
        ([(np.zeros((4, 3, 6, 6), np.float32), np.zeros(3, int))], "4 inputs and labels of shape \\[3\\]"),
        ([(np.zeros((4, 3, 6, 6), np.float32), np.full(4, 5))], "knows the classes 0 to 4"),
        ([(np.zeros((4, 3, 6, 6), np.float32), np.full(4, -1))], "knows the classes 0 to 4"),
        ([(np.zeros((4, 3, 6, 6), np.float32), np.zeros(4))], "whole numbers"),
    ],
)
def test_unusable_data_is_refused(bad: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep(network(), bad, [Gates()])


def test_a_sweep_needs_the_coupling() -> None:
    net = Net(1, 3, 6, 6)
    with pytest.raises(PassError, match="put 'couple' before it"):
        sweep(net.graph(net.head(net.conv("x", 4))), data(1), [Gates()])


def test_a_network_that_answers_with_nan_is_named() -> None:
    graph = network()
    graph = dataclasses.replace(graph, weights={n: w * np.float32(1e15) for n, w in graph.weights.items()})
    with pytest.raises(InputError, match=r"output .* holds NaN or infinity"):
        sweep(graph, data(4), [Gates()])


@pytest.mark.parametrize("kind", [Examples, InputMoments])
def test_what_overflows_inside_is_refused_though_the_outputs_are_finite(kind: type) -> None:
    net = Net(4, 3, 6, 6, seed=3)
    graph = Couple()(net.graph(net.head(net.node("sigmoid", net.conv(net.relu(net.conv("x", 8)), 8)))))
    x = [part * np.float32(1e25) for part in data(4)]  # squares of what this becomes are beyond float32
    assert np.isfinite(evaluate(graph, {"x": x[0]})[0]).all()
    with pytest.raises(InputError, match=r"the sums at '.*' \(.*\) hold NaN or infinity"):
        sweep(graph, x, [n for n in all_needs(graph) if isinstance(n, kind)])
