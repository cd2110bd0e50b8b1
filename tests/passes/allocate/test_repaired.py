"""Networks that are judged by what they answer once they are repaired, on examples that no repair saw."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from secateur.ir import Array, Graph
from secateur.passes import Pipeline
from secateur.passes.allocate import Allocation, Amount, Timed, repaired
from secateur.passes.allocate.repaired import MOVED, OFF, Repaired, _rivals
from secateur.passes.allocate.timed import _said
from secateur.passes.compensate.refit import Refit
from secateur.passes.context import Calibration, context_of, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.pipeline import Pass
from secateur.passes.recipe.mask import mask_of
from secateur.passes.score import L1
from secateur.passes.sweep.outputs import moved, squares
from support.network import Net

X = np.random.default_rng(0).standard_normal((64, 3, 6, 6)).astype(np.float32)


def twins(batch: int = 1) -> Graph:
    """A layer of four units, of which 0 and 1 compute the same, and 3 little that nobody else does."""
    net = Net(batch, 3, 6, 6)
    hidden = net.relu(net.conv("x", 4, bias=False))
    graph = net.graph(net.conv(hidden, 5))
    first = next(iter(graph.weights))
    weight = graph.weights[first].copy()
    weight[1] = weight[0]
    weight[3] *= 0.2
    graph = graph.rewrite(weights={**graph.weights, first: weight})
    return Pipeline((Couple(), L1()))(in_context(graph, calibration=Calibration([X[:24], X[24:]], 0, len(X))))


def without(graph: Graph, position: int) -> Graph:
    """Masked: the hidden layer has no unit of this position."""
    coupling = graph.note(Coupling)
    assert coupling is not None
    units = next(s.units for s in coupling.slots if s.weight == next(iter(graph.weights)) and s.axis == 0)
    mask = np.ones(coupling.size, bool)
    mask[units[position]] = False
    return graph.with_note(KeepMask(mask))


def test_what_a_repair_makes_up_for_counts_as_nothing() -> None:
    graph = twins()
    masked = [without(graph, 1), without(graph, 3)]
    bare = Repaired(())(graph, masked)
    mended = Repaired((Refit(ridge=1e-6, positions=36),))(graph, masked)
    assert bare is not None and mended is not None
    assert bare.errors[0] > 0.3 > bare.errors[1] > 0.01  # a large unit is missed more,
    assert mended.errors[0] < 1e-3 < 0.01 < mended.errors[1] < bare.errors[1]  # but its twin takes its place
    assert (bare.best, mended.best) == (1, 0)


class Spy:
    """A repair that does nothing and keeps what it was shown."""

    name = "spy"

    def __init__(self) -> None:
        self.seen: list[set[bytes]] = []
        self.examples: list[int | None] = []
        self.original: Graph | None = None

    def __call__(self, graph: Graph) -> Graph:
        context = context_of(graph)
        assert context.calibration is not None
        self.seen.append({x.tobytes() for part in context.calibration.data for x in part["x"]})  # type: ignore[index]
        self.examples.append(context.calibration.examples)
        self.original = context.original
        return graph


def test_each_example_judges_once_and_never_what_it_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur.passes.sweep import outputs

    judged: list[set[bytes]] = []
    feeds = outputs.feeds

    def watched(graph: Graph, data: list[dict[str, Array]], examples: int) -> object:
        judged.append({x.tobytes() for part in data for x in part["x"]})
        return feeds(graph, data, examples)

    monkeypatch.setattr(outputs, "feeds", watched)
    graph, spy = twins(), Spy()
    same = [without(graph, 3)] * 2  # neither is worse
    found = Repaired((spy,))(graph, same)
    rows = {x.tobytes() for x in X}
    assert [len(part) for part in judged] == [16] * 4
    assert set().union(*judged) == rows
    fits = list(zip(spy.seen[::2], spy.seen[1::2], judged, strict=True))
    assert all(fit == other == rows - part for fit, other, part in fits)
    assert spy.examples == [48] * 8
    assert found is not None
    assert found.examples == (64, 64)
    assert spy.original is not None
    assert [n.name for n in spy.original.nodes] == [n.name for n in graph.nodes]


def test_what_is_clearly_worse_is_repaired_no_more() -> None:
    """Without any repair the large unit is missed most; of the others nobody is worse than its like."""
    graph, spy = twins(), Spy()
    found = Repaired((spy,))(graph, [without(graph, 3), without(graph, 1), without(graph, 3)])
    assert found is not None
    assert found.examples == (64, 32, 64)  # two parts of sixteen: fewer would say too little
    assert len(spy.seen) == 3 + 3 + 2 + 2
    alone = Repaired((spy,))(graph, [without(graph, 1), without(graph, 3)])
    assert alone is not None
    assert alone.examples == (32, 32)  # then nobody is left to compare with
    assert alone.best == 1


def test_what_scatters_more_than_it_differs_is_not_given_up() -> None:
    """By hand: mean 0.1 with a standard deviation of 1 in 100 examples is one standard error, and 0.3 is three."""
    ones = np.tile([1.0, -1.0], 50)
    best, near, far = np.zeros(100), 0.1 + ones, 0.3 + ones
    assert _rivals([4, 5, 7], [best, near, far]) == [4, 5]
    assert _rivals([4, 7], [best[:30], far[:30] + 9]) == [4, 7]


def test_what_was_given_up_is_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was better on the easy examples that it saw than the others are on all."""
    easy, hard = [np.full(16, x) for x in (0.1, 0.2, 0.1)], [np.full(16, 0.8)] * 2
    rounds = iter([easy, easy, hard, hard])
    monkeypatch.setattr(Repaired, "_offs", lambda *_: next(rounds))
    graph = twins()
    found = Repaired(())(graph, [without(graph, 1)] * 3)
    assert found is not None
    assert found.examples == (64, 32, 64)
    assert found.best == 0
    assert found.errors == pytest.approx([x**0.5 for x in (0.45, 0.2, 0.45)])
    networks = [SimpleNamespace(how=how) for how in ("one", "two", "three")]
    assert _said(networks, found) == (  # type: ignore[arg-type]
        "repaired and run on 64 examples that no repair saw: 67.1% (one), 44.7% (two, given up after 32), 67.1% "
        "(three) of the outputs' size is their error; taken: the least of those not given up"
    )


def test_only_the_first_examples_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repaired, "EXAMPLES", 26)  # two of the seventh batch
    graph = twins(batch=4)
    found = Repaired(())(graph, [without(graph, 3)] * 2)
    assert found is not None
    assert found.examples == (26, 26)


def test_squares_of_errors_count_example_by_example() -> None:
    """Two batches of a network with two outputs, by hand: errors 1 and 2 of the first example, a square of 4 shared."""
    wanted = [np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([2.0, 2.0]), np.array([[3.0, 3.0]]), np.array([0.0])]
    found = [np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([4.0, 2.0]), np.array([[3.0, 3.0]]), np.array([1.0])]
    mean = (4 * 1 + 2 * 4 + 2 * 9) / 3
    assert squares(found, wanted, [2, 1]) == pytest.approx(np.array([5, 0, 1]) / mean)
    shared = squares([np.array([2.0])], [np.array([0.0])], [2])  # one number for both examples
    assert shared[0] == shared[1] > 1e100


@pytest.mark.parametrize(("count", "judges"), [(7, None), (8, (8, 8)), (11, (11, 11))])
def test_few_examples_judge_nothing(count: int, judges: tuple[int, int] | None) -> None:
    graph = in_context(twins(), calibration=Calibration([X[:count]], 0, count))
    masked = [without(graph, 3), without(graph, 1)]
    found = Repaired(())(graph, masked)
    assert (found and found.examples) == judges  # too few to give one of them up
    assert Repaired(())(in_context(graph, calibration=None), [without(graph, 3)]) is None


class Halving:
    """Any network that lost a unit takes half of the time."""

    def __call__(self, *graphs: Graph) -> list[float]:
        return [10.0 if g.weights[next(iter(g.weights))].shape[0] == 4 else 4.9 for g in graphs]

    def layers(self, graph: Graph) -> dict[str, float]:
        return {}


def leaving_out(position: int) -> Callable[[float], Pass]:
    def step(graph: Graph) -> Graph:
        return without(graph, position).with_note(Allocation(Amount("macs", 0.5), 1.0, 1.0, 1))

    return lambda share: step  # type: ignore[return-value]


@pytest.mark.parametrize("judged", [True, False])
def test_of_networks_that_met_the_budget_the_one_that_answers_best_is_taken(judged: bool) -> None:
    graph = in_context(twins(), latency=Halving())
    dear, cheap = (mask_of(without(graph, position)) for position in (1, 3))

    def given_up(masked: Graph) -> float:
        return 2.0 if (mask_of(masked) == dear).all() else 1.0

    judge = Repaired((Refit(ridge=1e-6, positions=36),)) if judged else None
    timed = Timed(
        Amount("speedup", 2.0), leaving_out(3), True, given_up, others=((leaving_out(1), "other things"),), judge=judge
    )
    done = timed(graph)
    assert (mask_of(done) == (dear if judged else cheap)).all()
    note = done.note(Allocation)
    assert note is not None
    said = [
        remark for remark in note.remarks if remark.startswith("repaired and run on 32 examples that no repair saw: ")
    ]
    assert len(said) == judged
    assert all("of the other things" in remark and "of the MACs" in remark for remark in said)
    assert [trial.taken for trial in note.tried].count(True) == 1


def test_ways_that_only_a_judge_could_prefer_are_left_out_without_data() -> None:
    graph = in_context(twins(), latency=Halving(), calibration=None)
    others = ((leaving_out(1), "other things"),)
    done = Timed(Amount("speedup", 2.0), leaving_out(3), True, lambda g: 1.0, others=others, judge=Repaired(()))(graph)
    note = done.note(Allocation)
    assert note is not None
    assert (mask_of(done) == mask_of(without(graph, 3))).all()
    assert not [remark for remark in note.remarks if "other things" in remark or "repaired" in remark]


def test_of_each_search_the_network_that_gives_up_least_is_repaired() -> None:
    """One way finds two networks that meet the budget: without both units, and without the small one alone."""

    class Steps(Halving):
        def __call__(self, *graphs: Graph) -> list[float]:
            return [{4: 10.0, 3: 4.9, 2: 4.0}[g.weights[next(iter(g.weights))].shape[0]] for g in graphs]

    def given_up(masked: Graph) -> float:
        return float((~mask_of(masked)).sum())

    def at(share: float) -> Pass:
        def both(graph: Graph) -> Graph:
            large = mask_of(without(graph, 1))
            done = leaving_out(3)(share)(graph)
            return done if share > 0.6 else done.with_note(KeepMask(mask_of(done) & large))

        return both  # type: ignore[return-value]

    graph = in_context(twins(), latency=Steps())
    others = ((leaving_out(1), "other things"),)
    done = Timed(Amount("speedup", 2.0), at, True, given_up, others=others, judge=Repaired(()))(graph)
    note = done.note(Allocation)
    assert note is not None
    assert {trial.ms for trial in note.tried} == {4.9, 4.0}
    assert (mask_of(done) == mask_of(without(graph, 3))).all()


def test_classes_are_judged_by_the_probability_that_moves() -> None:
    """By hand: softmax of (0, ln 3) is (1/4, 3/4), of (0, 0) halves: a quarter moves; of (9, 9 + ln 3) nothing does."""
    scores = np.log([[1.0, 3.0], [1.0, 1.0]])
    assert moved(scores, scores + 9) == pytest.approx([0, 0])
    assert moved(scores, scores[::-1]) == pytest.approx([0.25, 0.25])
    shares = np.array([[0.25, 0.75], [0.5, 0.5]])  # which are probabilities already
    assert moved(shares, shares[::-1]) == pytest.approx([0.25, 0.25])
    assert moved(np.log([[1.0, 3.0]]), np.array([[2.0, 2.0]])) == pytest.approx([0.25])


@pytest.mark.parametrize("classes", [True, False])
def test_what_scores_classes_is_judged_as_such(classes: bool) -> None:
    """All scores change by as much where a unit is gone: no answer changes, and every output does."""
    net = Net(1, 3, 6, 6)
    hidden = net.relu(net.conv("x", 4, bias=False))
    graph = net.graph(net.head(hidden, 5) if classes else net.conv(hidden, 5))
    last = [name for name, w in graph.weights.items() if w.ndim > 1 and w.shape[0] == 5][-1]
    weight = graph.weights[last].copy()
    of_first = slice(0, weight.shape[1] // 4)  # flattened, each unit has a column for every place
    weight[:, of_first] = weight[0, of_first]  # what unit 0 gives is the same for all outputs
    graph = graph.rewrite(weights={**graph.weights, last: weight})
    graph = Pipeline((Couple(), L1()))(in_context(graph, calibration=Calibration([X], 0, len(X))))
    found = Repaired(())(graph, [without(graph, 0)])
    assert found is not None
    assert found.what == (MOVED if classes else OFF)
    assert (found.errors[0] < 1e-6) == classes


def test_a_network_that_leaves_some_of_the_budget_says_that_others_were_worse() -> None:
    """Without the small unit a run takes 4 ms of 5, without the twin 4.9, which misses more."""

    class Uneven(Halving):
        def __call__(self, *graphs: Graph) -> list[float]:
            first = [g.weights[next(iter(g.weights))] for g in graphs]
            small = np.linalg.norm(first[0][3])
            return [10.0 if len(w) == 4 else 4.9 if np.linalg.norm(w[-1]) == small else 4.0 for w in first]

    graph = in_context(twins(), latency=Uneven())
    others = ((leaving_out(1), "other things"),)
    said = {}
    for ways in (others, ()):
        timed = Timed(Amount("speedup", 2.0), leaving_out(3), True, lambda g: 1.0, others=ways, judge=Repaired(()))
        note = timed(graph).note(Allocation)
        assert note is not None
        (said[ways],) = [remark for remark in note.remarks if remark.startswith("the budget is used to 80.0%: ")]
    assert said[others].endswith("what uses more of it was judged worse")
    assert said[()].endswith("no widths that were tried come nearer to it")
