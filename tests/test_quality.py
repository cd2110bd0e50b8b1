"""A budget in quality: how it searches, what it says, and the whole way on a trained network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.ir import BudgetError, InputError
from secateur.quality import FINE, interval, kept_share, search
from secateur.report.parts import Quality


def answers(curve: Callable[[float], float], examples: int = 1000) -> Callable[[float], Quality]:
    return lambda share: Quality(curve(share), None, examples, True)


def line(share: float) -> float:
    """All answers stay at 40 % of the work, nine in ten at 20 %."""
    return min(1.0, 0.8 + share / 2)


@pytest.mark.parametrize(("keep", "least"), [(0.95, 0.3), (0.85, 0.1), (1.0, 0.4), (0.999, 0.398)])
def test_the_least_share_is_found(keep: float, least: float) -> None:
    share, trials = search(keep, 1.0, answers(line))
    assert least <= share <= least + FINE
    assert trials[0].share == 0.5
    assert line(share) >= keep


def test_a_budget_of_work_is_the_most_that_may_remain() -> None:
    assert search(0.95, 0.35, answers(line))[0] <= 0.35
    with pytest.raises(BudgetError, match=r"with at most 20% of the MACs.*90.0% at 20%.*distill"):
        search(0.95, 0.2, answers(line))


def test_shares_that_cannot_be_made_are_passed_over() -> None:
    def at(share: float) -> Quality:
        if share < 0.6:
            raise BudgetError("the least is 60 %")
        return answers(line)(share)

    assert 0.6 <= search(0.95, 1.0, at)[0] <= 0.6 + 2 * FINE


def test_a_network_that_never_answers_the_same() -> None:
    with pytest.raises(BudgetError, match=r"0\.99 of the answers cannot be kept: the most was 50\.0% at"):
        search(0.99, 1.0, answers(lambda share: 0.5))


@pytest.mark.parametrize(("keep", "share"), [("99%", 0.99), (0.5, 0.5), ("0.9", 0.9), (1, 1.0)])
def test_shares_of_answers(keep: float | str, share: float) -> None:
    assert kept_share(keep) == pytest.approx(share)


@pytest.mark.parametrize("keep", ["", "all", "0%", 1.5, "101%", True, float("nan")])
def test_what_is_no_share(keep: float | str) -> None:
    with pytest.raises(InputError, match=r"such as 99% or 0\.99"):
        kept_share(keep)


def test_wilsons_interval_by_hand() -> None:
    """Of ten all: (10 / (10 + z^2), 1)."""
    low, high = interval(10, 10)
    assert (low, high) == (pytest.approx(10 / (10 + 1.96**2)), 1.0)
    assert sum(interval(50, 100)) == pytest.approx(1.0)


def test_too_few_examples_and_other_outputs_are_refused() -> None:
    with pytest.raises(InputError, match="at least 100 can be held out"):
        search(0.99, 1.0, answers(line, 60))
    with pytest.raises(InputError, match="not scores by class"):
        search(0.9, 1.0, lambda share: None)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """Learns in which quarter of a picture its brightest spot is; many of its channels say the same."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(96, 4),
    )  # fmt: skip
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    for step in range(60):
        x, y = spots(64, step)
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net.eval()


def spots(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    x, at = rng.uniform(0, 0.4, (count, 1, 8, 8)).astype(np.float32), rng.integers(0, 8, (count, 2))
    x[np.arange(count), 0, at[:, 0], at[:, 1]] += 2
    return torch.from_numpy(x), torch.from_numpy(at[:, 0] // 4 * 2 + at[:, 1] // 4)


def test_the_whole_way(trained: nn.Module) -> None:
    data = [spots(64, 1000 + i)[0] for i in range(8)]
    policy = "obs,knapsack{loss=sum,round_to=1},slim,refit"
    slim = secateur.compile(trained, policy, example_inputs=(data[0][:1],), calibration=iter(data), keep="95%")
    report = slim.report
    assert report.after is not None
    assert report.after["macs"] < 0.5 * report.before["macs"]
    assert report.verification is not None
    assert report.verification["passed"]
    assert report.reading is not None
    (told,) = [r for r in report.remarks if "had to stay" in r]
    assert "95 times in 100" in told
    with torch.no_grad():
        x, _ = spots(2000, 5)
        agree = float((slim.module()(x).argmax(1) == trained(x).argmax(1)).float().mean())
    assert agree >= 0.92, "and what was judged by is no accident"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "give calibration"),
        ({"calibration": [spots(8, 0)[0]], "params": 0.5}, "params cannot be given as well"),
        ({"calibration": [spots(8, 0)[0]], "widths": {"0": 3}}, "widths cannot be given as well"),
    ],
)
def test_what_it_does_not_go_with(trained: nn.Module, more: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        secateur.compile(trained, example_inputs=(spots(1, 0)[0],), keep=0.9, **more)  # type: ignore[arg-type]
