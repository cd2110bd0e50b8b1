"""Allocation: what a selection must respect, and how closely budgets are met."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.ir import BudgetError, Graph, InputError
from secateur.passes import Pipeline
from secateur.passes.allocate import Allocation, Global, Uniform
from secateur.passes.allocate.select import _cells, by_score, by_share, climb
from secateur.passes.allocate.widths import SLACKS, stops
from secateur.passes.analysis.cost import cost
from secateur.passes.context import in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Channels, Constraint, Coupling, KeepMask, Slot
from secateur.passes.rewrite.slim import Slim, slim_shapes
from secateur.passes.score import L1, Slimming
from support.nets import chain, residual
from support.selection import select


def domains(
    sizes: list[int], cells: list[int] | None = None, frozen: tuple[int, ...] = (), slots: tuple[Slot, ...] = ()
) -> Coupling:
    """Pools of these sizes, each cut into so many equal cells that must keep equally many."""
    size = sum(sizes)
    domain = np.repeat(np.arange(len(sizes)), sizes)
    cell = np.concatenate([np.arange(n) * c // n for n, c in zip(sizes, cells or [1] * len(sizes), strict=True)])
    hard = np.zeros(size, bool)
    hard[list(frozen)] = True
    every = tuple(Slot(f"w{p}", 0, np.flatnonzero(domain == p), "out", f"n{p}") for p in range(len(sizes)))
    return Coupling(size, {}, every + slots, (), (), (), hard, domain, cell + 100 * domain, domain.copy(), {})


@st.composite
def problems(draw: st.DrawFn) -> tuple[Coupling, np.ndarray]:
    cells = draw(st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=4))
    sizes = [c * draw(st.integers(1, 12)) for c in cells]
    total = sum(sizes)
    frozen = draw(st.lists(st.integers(0, total - 1), max_size=4))
    scores = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 5, total).astype(float)
    if draw(st.booleans()):
        scores[draw(st.integers(0, total - 1))] = np.nan
    return domains(sizes, cells, tuple(frozen)), scores


@given(problems(), st.floats(0, 1), st.sampled_from([1, 2, 4, 8]), st.sampled_from([0.0, 0.1, 0.5]), st.booleans())
def test_every_selection_can_be_carried_out(
    problem: tuple[Coupling, np.ndarray], amount: float, round_to: int, floor: float, share: bool
) -> None:
    coupling, scores = problem
    how = {"fraction": amount} if share else {"threshold": 5 * amount}
    mask = select(coupling, scores, round_to=round_to, floor=floor, **how)
    assert mask[coupling.frozen].all()
    assert mask[np.isnan(scores)].all()
    for domain in np.unique(coupling.domain):
        members = coupling.domain == domain
        kept = [int(mask[members & (coupling.cell == c)].sum()) for c in np.unique(coupling.cell[members])]
        assert len(set(kept)) == 1
        assert sum(kept) >= max(1, floor * members.sum())
        if members.sum() > round_to and not mask[members].all():
            assert sum(kept) % round_to == 0


@given(problems(), st.sampled_from([by_share, by_score]), st.sampled_from([1, 4, 8]))
def test_selections_are_nested(problem: tuple[Coupling, np.ndarray], order: object, round_to: int) -> None:
    ladder = climb(*problem)
    steps = order(ladder)  # type: ignore[operator]
    at = stops(problem[0], ladder, round_to)
    masks = [ladder.mask(at.rounded(ladder.kept(steps, n))) for n in range(len(steps) + 1)]
    assert all((small <= large).all() for small, large in itertools.pairwise(masks))
    assert masks[-1].all()


def widths_of(
    coupling: Coupling, lanes: int, work: dict[str, int] | None = None, slack: float = SLACKS[0]
) -> list[list[int]]:
    """The numbers of rungs at which each orbit may stop."""
    ladder = climb(coupling, np.zeros(coupling.size))
    at = stops(coupling, ladder, lanes, work, slack)
    every = [at.rounded(np.minimum(n, ladder.length)) for n in range(1, int(ladder.length.max()) + 1)]
    return [sorted({int(row[o]) for row in every}) for o in range(len(ladder.length))]


def grouped(groups: int, width: int) -> Coupling:
    """One convolution in so many groups, all of one width."""
    coupling = domains([groups * width], [groups])
    of = np.arange(groups * width)
    return dataclasses.replace(coupling, constraints=(Constraint("n0", "out", of, of // width),))


@pytest.mark.parametrize(
    ("lanes", "groups", "width", "expected"),
    [
        (16, 1, 58, [16, 32, 48, 58]),
        (8, 1, 20, [8, 16, 20]),
        (16, 1, 12, list(range(1, 13))),  # one vector in any case
        (1, 1, 5, [1, 2, 3, 4, 5]),
        (16, 3, 20, [16, 20]),  # 3 groups of 20 fill 3 x 2 vectors, of 16 they fill 3
        (16, 32, 4, [1, 2, 4]),  # whole groups share a vector
        (16, 8, 12, [1, 2, 4, 8, 12]),
        (4, 2, 6, [4, 6]),
    ],
)
def test_widths_stop_where_vectors_are_full(lanes: int, groups: int, width: int, expected: list[int]) -> None:
    assert widths_of(grouped(groups, width), lanes) == [expected]


def test_of_two_producers_the_one_with_more_work_decides() -> None:
    """24 channels in vectors of 8; another layer makes all but the best four of them too."""
    coupling = domains([24], slots=(Slot("late", 0, np.arange(4, 24), "out", "s"),))
    assert widths_of(coupling, 8, {"w0": 1000, "late": 1}) == [[8, 16, 24]]
    assert widths_of(coupling, 8, {"w0": 1, "late": 1000}) == [[12, 20, 24]]
    # Alike: 12 of 16 lanes, 20 of 24, 28 of 32 and 36 of 40 are taken at 8, 12, 16 and 20 channels.
    assert widths_of(coupling, 8, {"w0": 24, "late": 20}) == [[16, 20, 24]]
    assert widths_of(coupling, 8, {"w0": 24, "late": 20}, slack=0.8) == [[8, 12, 16, 20, 24]]


def test_an_orbit_that_nobody_needs_may_go() -> None:
    assert not select(dataclasses.replace(domains([4]), slots=()), np.zeros(4), threshold=1.0).any()


def test_channels_that_cannot_go_count_in_the_width() -> None:
    """3 of 20 positions have no unit: 8 and 16 channels are 5 and 13 units."""
    slot = Slot("w", 0, np.concatenate([np.full(3, -1), np.arange(17)]), "out", "n")
    coupling = dataclasses.replace(domains([17]), slots=(slot,))
    assert widths_of(coupling, 8) == [[5, 13, 17]]


def test_best_scores_stay_and_ties_keep_the_lower() -> None:
    mask = select(domains([6]), np.array([1.0, 5, 2, 5, 2, 2]), fraction=0.5)
    assert mask.tolist() == [False, True, True, True, False, False]


def test_cells_keep_equally_many_of_their_own() -> None:
    mask = select(domains([8], [2]), np.array([9.0, 8, 7, 6, 1, 2, 3, 4]), fraction=0.5)
    assert mask.tolist() == [True, True, False, False, False, False, True, True]


def test_every_axis_keeps_its_best() -> None:
    tail = Slot("tail", 1, np.array([6, 7]), "in", "n")
    mask = select(domains([8], slots=(tail,)), np.arange(8, 0, -1.0), fraction=0.25)
    assert mask.tolist() == [True, False, False, False, False, False, True, False]


def test_a_position_that_cannot_go_needs_no_survivor() -> None:
    tail = Slot("tail", 1, np.array([6, -1]), "in", "n")
    assert select(domains([8], slots=(tail,)), np.arange(8, 0, -1.0), fraction=0.25).tolist()[6] is False


def test_values_keep_a_channel() -> None:
    coupling = domains([8])
    coupling.channels.update(part=Channels(1, np.array([7])))  # type: ignore[attr-defined]
    assert select(coupling, np.arange(8, 0, -1.0), fraction=0.25)[7]


def allocate(graph: Graph, method: object) -> tuple[Graph, Allocation, np.ndarray]:
    done = Pipeline((Couple(), L1(), method))(graph)  # type: ignore[arg-type]
    note, mask = done.note(Allocation), done.note(KeepMask)
    assert note is not None
    assert mask is not None
    return done, note, mask.mask


@pytest.mark.parametrize("kind", ["macs", "params", "bytes"])
@pytest.mark.parametrize("method", [Uniform, Global])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_budget_is_met_on_the_real_graph(kind: str, method: type, share: float) -> None:
    graph = residual()
    done, note, _ = allocate(graph, method(**{kind: share}, round_to=1))
    slim = getattr(cost(Slim()(done)), kind)
    whole = getattr(cost(graph), kind)
    assert slim <= share * whole
    assert slim > 0.9 * share * whole  # one step of the widest domain is 4 of 16 channels' cells
    assert note.reached == slim


def test_a_budget_of_everything_keeps_everything() -> None:
    assert allocate(residual(), Global(macs=1.0))[2].all()


def test_out_of_reach_states_the_least() -> None:
    graph = residual()
    with pytest.raises(BudgetError, match=r"macs.*out of reach: at least ([\d,]+)") as caught:
        allocate(graph, Uniform(macs=1000))
    least = int(str(caught.value).split("at least ")[1].split(" ")[0].replace(",", ""))
    done, note, _ = allocate(graph, Uniform(macs=least))
    assert note.reached == least == cost(Slim()(done)).macs


def test_auto_rounding_gives_way_and_says_so() -> None:
    note = allocate(chain(), Uniform(macs=0.06))[1]
    assert note.round_to < 8
    assert "multiples of" in note.remarks[0]
    assert allocate(chain(), Uniform(macs=0.51))[1].round_to == 8
    wide = in_context(chain(), lanes=16)
    assert allocate(wide, Uniform(macs=0.28))[1].round_to == 16
    assert allocate(wide, Uniform(macs=0.28, round_to=4))[1].round_to == 4


def test_finer_widths_use_what_wide_ones_leave() -> None:
    """With 8 and 16, and 8 to 32 channels, 44 % is the most below half."""
    note = allocate(chain(), Uniform(macs=0.5))[1]
    assert note.round_to == 4
    assert note.reached / note.before > 0.49
    assert allocate(chain(), Uniform(macs=0.5, round_to=8))[1].reached < 0.45 * note.before


@pytest.mark.parametrize("method", [Uniform, Global])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_the_number_that_auto_came_to_gives_the_same_again(method: type, share: float) -> None:
    """On any machine: the note about vectors no longer matters."""
    for graph in (chain(), residual()):
        _, note, mask = allocate(in_context(graph, lanes=16), method(macs=share))
        again = allocate(graph, method(macs=share, round_to=note.round_to))[2]
        assert np.array_equal(mask, again)


def test_fixed_rounding_does_not_give_way() -> None:
    with pytest.raises(BudgetError):
        allocate(chain(), Uniform(macs=0.06, round_to=8))


def test_share_of_channels() -> None:
    done, _, mask = allocate(residual(), Uniform(channels=0.5, round_to=1))
    widths = {row.node: row.widths for row in cost(slim_shapes(done, mask)).layers}
    assert widths == {"a": (3, 8), "b": (8, 12), "c": (12, 8), "g": (8, 16), "y": (16, 4)}
    free = int((~done.note(Coupling).frozen).sum())  # type: ignore[union-attr]
    _, _, mask = allocate(residual(), Global(channels=0.5, round_to=1))
    assert abs(int(mask.sum()) - (mask.size - free / 2)) <= 4


def test_unscored_channels_stay() -> None:
    done = Pipeline((Couple(), Slimming(), Global(macs=0.8, round_to=1)))(chain())
    widths = {row.node: row.widths for row in cost(Slim()(done)).layers}
    assert widths["c2"] is not None
    assert widths["c2"][1] == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no budget"),
        ({"macs": 0.5, "params": 0.5}, "macs and params"),
        ({"macs": 1.5}, "share"),
        ({"macs": 0}, "more than 0"),
        ({"macs": 0.5, "round_to": 0}, "round_to"),
        ({"macs": 0.5, "round_to": "eight"}, "round_to"),
        ({"channels": 3}, "share"),
    ],
)
def test_senseless_budgets(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        allocate(chain(), Uniform(**options))  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_orbits_of_one_cell_become_one_for_each_domain(rows: list[tuple[int, int, int]]) -> None:
    """By rows put in order: (domain, orbit, cell), the last two -1 where an orbit of the domain has one cell alone."""
    domain, orbit, name = np.array(rows).T
    cells = {pair: {c for d, o, c in rows if (d, o) == pair} for pair in {(d, o) for d, o, _ in rows}}
    merged = [(d, -1, -1) if len(cells[d, o]) == 1 else (d, o, c) for d, o, c in rows]
    number = {row: i for i, row in enumerate(sorted(set(merged)))}
    orbits = {pair: i for i, pair in enumerate(sorted({row[:2] for row in merged}))}
    cell, of_cell = _cells(SimpleNamespace(domain=domain, orbit=orbit, cell=name))  # type: ignore[arg-type]
    assert cell.tolist() == [number[row] for row in merged]
    assert of_cell.tolist() == [orbits[row[:2]] for row in sorted(set(merged))]
