"""Widths and channels chosen by hand, and scores without a cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.ir import InputError
from support.nets import chain, residual


def widths_of(done: secateur.Compiled) -> dict[str, int]:
    return {row.name: row.widths[1][1] for row in done.report.layers if row.widths[1] is not None}


def held(done: secateur.Compiled) -> bool:
    return done.report.verification is not None and done.report.verification.passed


def test_channels_that_are_named_go_and_no_others() -> None:
    done = secateur.compile(residual(), drop={"b": [3, 7, 7], "a": [0, 4, 8, 12]})
    assert held(done)
    kept = done.recipe.weights
    assert kept["b.w"][0] == [i for i in range(24) if i not in (3, 7)]
    assert kept["c.w"] == {0: [i for i in range(16) if i % 4], 1: kept["b.w"][0]}  # coupled by the sum, and b's reader
    assert done.report.policy == "by_hand,slim"
    assert done.report.budget is None


def test_widths_keep_what_the_criterion_ranks_highest() -> None:
    done = secateur.compile(chain(), widths={"c1": 0.5, "c2": 7})
    assert held(done)
    assert widths_of(done) == {"c1": 8, "c2": 7, "fc": 5}
    norms = np.abs(chain().weights["c2.w"].astype(np.float64)).sum((1, 2, 3))
    assert done.recipe.weights["c2.w"][0] == sorted(np.argsort(norms)[-7:].tolist())
    assert done.report.policy == "l1,by_hand,slim"


def test_globs_name_layers_and_what_nobody_names_stays() -> None:
    done = secateur.compile(residual(), widths={"[bc]": 0.75})
    assert held(done)
    assert widths_of(done) == {"a": 12, "b": 18, "c": 12, "g": 32, "y": 4}


def test_widths_and_channels_together() -> None:
    done = secateur.compile(residual(), "l2", widths={"b": 0.5}, drop={"g": [0, 8, 16, 24]})
    assert held(done)
    assert widths_of(done) == {"a": 16, "b": 12, "c": 16, "g": 28, "y": 4}


def test_modules_and_types_name_layers() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(12, 4)).eval()  # fmt: skip
    x = torch.randn(1, 3, 8, 8)
    assert list(widths_of(secateur.compile(net, example_inputs=(x,), widths={net[0]: 0.25})).values()) == [4, 12, 4]
    by_type = secateur.compile(net, example_inputs=(x,), widths={nn.Conv2d: 0.5})
    assert list(widths_of(by_type).values()) == [8, 6, 4]
    assert held(by_type)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": {"bb": [1]}}, "drop: 'bb' matches no layer of 'residual' \\(did you mean b"),
        ({"drop": {"b": [24]}}, "drop: 'b' has channels 0 to 23, not 24"),
        ({"drop": {"b": [0.5]}}, "drop: 'b' has channels 0 to 23, not 0.5"),
        ({"drop": {"y": [0]}}, "drop: 'y' cannot lose channel 0: graph output"),
        ({"drop": {"b": range(24)}}, "drop: 'b' would lose all 24 channels"),
        ({"drop": {"g": [0]}}, "grouped layer"),
        ({"widths": {"y": 0.5}}, "widths: 'y' keeps all 4 channels: graph output"),
        ({"widths": {"b": 1.5}}, "a share lies above 0 and is at most 1, not 1.5"),
        ({"widths": {"b": 25}}, "has 24 channels, so its width is from 1 to 24, not 25"),
        ({"widths": {"b": "half"}}, "a width is a share such as 0.5 or a number of channels, not 'half'"),
        ({"widths": {"g": 30}}, "widths: 'g' cannot keep 30 channels, near is 28"),
        ({"widths": {"a": 0.5, "c": 0.75}}, "'c' and 'a' have the same channels; give them one width"),
        ({"widths": {"b": 0.5}, "drop": {"b": [0]}}, "drop: 'b': its width was given as well"),
        ({"widths": {"b": 0.5}, "macs": 0.5}, "widths= and drop= say what remains, so macs cannot be given as well"),
        ({"widths": {"b": 0.5}, "policy": "none"}, "ranks no channels; name a criterion"),
        ({"widths": 0.5}, "widths is 0.5; give a dict"),
        ({"drop": {nn.Conv2d: [0]}}, "drop: .* can only be found in a torch module"),
    ],
)
def test_what_cannot_be_done_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        secateur.compile(residual(), **options)


def test_scores_are_one_number_for_each_unit_of_each_group() -> None:
    found = secateur.scores(chain(), "l1")
    groups = {group.id: group for group in secateur.inspect(chain()).groups}
    assert {name: len(values) for name, values in found.items()} == {name: group.size for name, group in groups.items()}
    c2 = next(name for name, group in groups.items() if "c2.w[0]" in group.slots)
    norms = np.abs(chain().weights["c2.w"].astype(np.float64)).sum((1, 2, 3))
    assert np.array_equal(np.argsort(found[c2]), np.argsort(norms))


def test_scores_of_data_need_data() -> None:
    batches = [np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)]
    assert all((values >= 0).all() for values in secateur.scores(chain(), "taylor", calibration=batches).values())
    with pytest.raises(InputError, match="needs calibration data"):
        secateur.scores(chain(), "taylor")
