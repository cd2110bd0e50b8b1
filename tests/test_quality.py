"""A budget in quality: how it searches, what it says, and the whole way on a trained network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.goals import Keep, Near, interval, kept_share, largest_error
from secateur.ir import Array, BudgetError, Graph, InputError
from secateur.passes.analysis.cost import totals
from secateur.passes.sweep import run as swept
from secateur.quality import FINE, search, smallest, too_slow
from secateur.report.parts import Deviation, Quality
from secateur.timing.agreement import measure
from support.network import Net


@dataclass(frozen=True)
class Seen:
    quality: Quality | None = None
    deviation: Deviation | None = None


MANY = 10**9  # examples whose standard error does not count


def answers(curve: Callable[[float], float], examples: int = MANY) -> Callable[[float], Seen]:
    return lambda share: Seen(Quality(curve(share), None, examples, True))


def line(share: float) -> float:
    """All answers stay at 40 % of the work, nine in ten at 20 %."""
    return min(1.0, 0.8 + share / 2)


@pytest.mark.parametrize(("keep", "least"), [(0.95, 0.3), (0.85, 0.1), (1.0, 0.4), (0.999, 0.398)])
def test_the_least_share_is_found(keep: float, least: float) -> None:
    share, trials = search(Keep(keep), 1.0, answers(line))
    assert least <= share <= least + FINE
    assert trials[0].share == 0.5
    assert line(share) >= keep


def test_a_budget_of_work_is_the_most_that_may_remain() -> None:
    assert search(Keep(0.95), 0.35, answers(line))[0] <= 0.35
    with pytest.raises(BudgetError, match=r"with at most 20% of the MACs.*90.0% at 20%.*distill"):
        search(Keep(0.95), 0.2, answers(line))


def test_shares_that_cannot_be_made_are_passed_over() -> None:
    def at(share: float) -> Seen:
        if share < 0.6:
            raise BudgetError("the least is 60 %")
        return answers(line)(share)

    assert 0.6 <= search(Keep(0.95), 1.0, at)[0] <= 0.6 + 2 * FINE


def test_a_network_that_never_answers_the_same() -> None:
    with pytest.raises(BudgetError, match=r"0\.99 of the answers cannot be kept: the best was 50\.0% at"):
        search(Keep(0.99), 1.0, answers(lambda share: 0.5))


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
        search(Keep(0.99), 1.0, answers(line, 60))
    with pytest.raises(InputError, match="not scores by class"):
        search(Keep(0.9), 1.0, lambda share: Seen())


@pytest.mark.parametrize(
    ("keep", "examples", "same", "enough"),
    [
        (0.99, 1024, 1016, False),
        (0.99, 1024, 1017, True),
        (0.99, 100, 99, False),
        (0.99, 100, 100, True),
        (1.0, 9, 9, True),
    ],
)
def test_a_standard_error_more_than_the_share_must_be_seen(keep: float, examples: int, same: int, enough: bool) -> None:
    """Of 1,024: 0.99 + sqrt(0.99 * 0.01 / 1024) = 0.99311, which is 1,016.9 of them."""
    seen = Seen(Quality(same / examples, None, examples, True))
    assert (Keep(keep).distance(seen) <= 0) == enough
    assert ("NOT what was asked" in Keep(keep).said(seen)) != enough


def test_outputs_that_are_no_classes_may_differ_by_so_much() -> None:
    def at(share: float) -> Seen:
        error = (1 - share) ** 2
        return Seen(None, Deviation(error, 0.9 * error, 1.1 * error, 16, True))

    share, trials = search(Near(largest_error("9%")), 1.0, at)
    assert 0.7 <= share <= 0.7 + FINE
    assert str(trials[0]) == "25.00% at 50%"
    said = Near(0.09).said(at(0.75))
    assert said.startswith(
        "outputs could differ by 9.00% at most: they do by 6.25% in the mean of 16 examples, between 5."
    )
    assert "NOT what was asked" in Near(0.09).said(at(0.6))
    with pytest.raises(BudgetError, match=r"0\.09 cannot be had with at most 50% of the MACs: the best was 25\.00% at"):
        search(Near(0.09), 0.5, at)
    with pytest.raises(InputError, match="real numbers"):
        search(Near(0.09), 0.5, lambda share: Seen())


@pytest.mark.parametrize("error", ["", "0%", 1, "120%", True, float("nan")])
def test_what_is_no_distance(error: float | str) -> None:
    with pytest.raises(InputError, match=r"such as 1% or 0\.01"):
        largest_error(error)


def test_deviation_by_hand() -> None:
    """Two outputs of which the second differs more; what is infinite in the original is left out."""
    net = Net(4, 3, 2, 2)
    graph = net.graph(str(net.node("relu", "x")), str(net.node("exp", "x")))
    before = [np.ones((4, 3, 2, 2), np.float32), np.full((4, 3, 2, 2), 2, np.float32)]
    before[1][0, 0, 0, 0] = np.inf
    by = np.array([1.02, 1.04, 1.02, 1.04], np.float32).reshape(4, 1, 1, 1)
    after = [before[0] * np.float32(1.01), before[1] * by]
    smaller = graph.rewrite()

    def run(given: Graph, feed: object) -> list[Array]:
        return before if given is graph else after

    found = measure(graph, smaller, [np.zeros((4, 3, 2, 2), np.float32)], True, run)
    assert found[0] is None
    assert found[1] is not None
    assert found[1].error == pytest.approx(0.03, rel=1e-4)
    assert found[1].high - found[1].error == pytest.approx(1.96 * np.std([0.02, 0.04] * 2, ddof=1) / 2, rel=1e-3)
    assert (found[1].examples, found[1].held_out) == (4, True)


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
    assert agree >= 0.92, "and what was judged by is not an accident"


@pytest.mark.parametrize(
    ("score", "slim_each"), [("obs,knapsack{loss=sum,round_to=1}", 0), ("taylor,global{round_to=1,rounds=2}", 1)]
)
def test_one_sweep_serves_all_trials(
    trained: nn.Module, score: str, slim_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original is swept once; networks between two rounds are others at each budget. The numbers stay the same."""
    data, seen, run = [spots(64, 1000 + i)[0] for i in range(4)], list[str](), swept.sweep

    def counted(graph: Graph, *given: Any, **more: Any) -> Graph:
        seen.append("original" if totals(graph).macs == most else "slim")
        return run(graph, *given, **more)

    asked = {"example_inputs": (data[0][:1],), "calibration": data}
    most = totals(secateur.trace(trained, (data[0][:1],))).macs
    monkeypatch.setattr(swept, "sweep", counted)
    found = secateur.compile(trained, f"{score},slim,refit", keep="90%", **asked)  # type: ignore[arg-type]
    (told,) = [r for r in found.report.remarks if "had to stay" in r]
    trials = told.count("% at ")
    assert trials >= 3
    assert seen.count("original") == 1
    assert seen.count("slim") == slim_each * (trials + 1)
    alone = secateur.compile(trained, found.report.policy, **asked)  # type: ignore[arg-type]
    assert seen.count("original") == 2
    for name, weight in alone.graph.weights.items():
        np.testing.assert_array_equal(weight, found.graph.weights[name])


@dataclass(frozen=True)
class Stated:
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """A network of which nothing is known but its share of the work and how it answers there."""

    share: float
    stated: Stated = Stated()

    @property
    def report(self) -> Seen:
        return answers(line)(self.share)


def test_what_is_small_enough_and_too_slow_is_made_smaller() -> None:
    """Every network takes 0.1 more than its share: the smallest that keeps 85 % is quick enough, not that of 97 %."""

    def make(*, macs: float) -> Any:
        return Made(macs)

    def slow(allowed: float) -> Callable[[Any], float]:
        return lambda made: (made.share + 0.1) / allowed

    assert smallest(Keep(0.85), 1.0, make, make, slow(0.25)).share <= 0.15  # type: ignore[attr-defined]
    with pytest.raises(BudgetError, match=r"with at most \d+% of the MACs"):
        smallest(Keep(0.97), 1.0, make, make, slow(0.25))


def test_the_whole_way_of_a_map(trained: nn.Module) -> None:
    maps = nn.Sequential(*list(trained.children())[:4])
    data = [spots(16, 2000 + i)[0] for i in range(4)]
    report = secateur.compile(
        maps, "l1,global{round_to=1},slim,refit", example_inputs=(data[0][:1],), calibration=data, max_error="30%"
    ).report
    assert report.after is not None
    assert report.deviation is not None
    assert report.deviation.error <= 0.3
    assert report.after.macs < 0.95 * report.before.macs
    assert report.quality is None
    assert "deviation: outputs differ by" in str(report)


@pytest.mark.parametrize("target", [None, "native"])
def test_the_whole_way_within_a_budget_of_time(trained: nn.Module, target: str | None, tmp_path: Path) -> None:
    """By a table of milliseconds that follow the work, half as long leaves less than what keeps enough answers may."""
    table = tmp_path / "t.csv"
    table.write_text(
        "op,inputs,outputs,kernel,stride,groups,size,ms\nconv,1,24,3x3,1,1,8x8,1\nconv,24,24,3x3,1,1,8x8,24\n"
        "conv,12,12,3x3,1,1,8x8,6\nlinear,96,4,1,1,1,1,0.1\n"
    )
    data = [spots(64, 1000 + i)[0] for i in range(4)]
    asked: dict[str, Any] = {
        "example_inputs": (data[0][:1],),
        "calibration": data,
        "keep": "60%",
        "latency_table": table,
    }
    report = secateur.compile(trained, "l1,global{round_to=1},slim,refit", target=target, speedup=2, **asked).report
    assert report.after is not None
    assert report.quality is not None
    assert report.quality.agreement >= 0.95
    assert report.after.macs < 0.6 * report.before.macs
    (told,) = [r for r in report.remarks if "had to stay" in r]
    assert float(told.partition("it takes ")[2].split()[0]) <= 1
    first = int(told.partition("tried: ")[2].partition(" at ")[2].partition("%")[0])
    assert first < 50, "where the search begins unless time allows less"
    with pytest.raises(InputError, match="latency table says what a budget of time takes"):
        secateur.compile(trained, "l1", **asked)


def test_how_many_times_too_slow(trained: nn.Module) -> None:
    """By a model of time that counts: half of the work is twice as fast."""
    x = spots(1, 0)[0]
    made = secateur.compile(trained, "l1", example_inputs=(x,), macs=0.5)
    dense = secateur.trace(trained, (x,))

    def model(*graphs: Graph) -> tuple[float, ...]:
        return tuple(float(totals(g).macs) for g in graphs)

    left, most = totals(made.graph).macs, totals(dense).macs
    assert too_slow(dense, {"speedup": "2x", "latency_ms": None}, model)(made) == pytest.approx(2 * left / most)  # type: ignore[arg-type]
    assert too_slow(dense, {"speedup": None, "latency_ms": left / 3}, model)(made) == pytest.approx(3)  # type: ignore[arg-type]


def test_a_lucky_block_makes_no_network_quick(trained: nn.Module) -> None:
    """The first comparison says that it takes half of its time."""
    x = spots(1, 0)[0]
    made = secateur.compile(trained, "l1", example_inputs=(x,), macs=0.5)
    dense = secateur.trace(trained, (x,))
    luck = iter([1.0, 0.5, *[1.0] * 99])

    def model(*graphs: Graph) -> tuple[float, ...]:
        factor = next(luck)
        return tuple(totals(g).macs * (factor if i else 1) for i, g in enumerate(graphs))

    left, most = totals(made.graph).macs, totals(dense).macs
    assert too_slow(dense, {"speedup": 1.02 * most / left}, model)(made) == pytest.approx(1.02)


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
