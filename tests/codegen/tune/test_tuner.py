"""The tuner: its time is kept, what was measured is kept, and the choice is the best that was seen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur import codegen
from secateur.codegen.build import workloads
from secateur.codegen.kernels.conv.spec import ConvChoice, ConvSpec
from secateur.codegen.kernels.families import FAMILIES
from secateur.codegen.kernels.strassen.spec import StrassenSpec
from secateur.codegen.kernels.templates import templates
from secateur.codegen.kernels.winograd.spec import WinogradSpec
from secateur.codegen.plan.strides import Strides
from secateur.codegen.records import Origin, Records, record_of
from secateur.codegen.targets import native
from secateur.codegen.tune.tuner import SHIPPED, Outcome, Tuner, candidates, open_records, versions
from secateur.ir import InputError
from support.kernels import conv, outputs
from support.nets import CHAIN, draw
from support.network import Net

PLANE = Strides(1024, 1024, 128, 16)


def spec(ci: int = 32, size: int = 8) -> ConvSpec:
    return ConvSpec(16, 1, ci, 2, size, size, (1, 1), (1, 1), (1, 1), PLANE, PLANE, False)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Team:
    """Workers on a clock of the test's own: job ``i`` takes ``costs[i]`` seconds, and its choices ``times(i)``."""

    clock: Clock
    costs: list[float]
    size: int = 2
    times: Callable[[int], Mapping[int, float]] = lambda name: {0: 1.0}
    left: dict[int, float] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    given: dict[int, Mapping[int, tuple[Any, Any]]] = field(default_factory=dict)

    def __enter__(self) -> Team:
        self.log.append("enter")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append("exit")

    @property
    def free(self) -> int:
        return self.size - len(self.left)

    @property
    def remarks(self) -> tuple[str, ...]:
        return ()

    def origin(self, name: int) -> Origin:
        return Origin("maker 1/2")

    def submit(self, name: int, kernels: Mapping[int, tuple[Any, Any]]) -> None:
        assert self.free > 0
        self.log.append(f"submit {name}")
        self.given[name] = kernels
        self.left[name] = self.costs[name]

    def wait(self, seconds: float) -> dict[int, Mapping[int, float]]:
        step = min([seconds, *self.left.values()])
        self.clock.now += step
        self.left = {name: left - step for name, left in self.left.items()}
        done = [name for name, left in self.left.items() if left <= 0]
        for name in done:
            del self.left[name]
        return {name: self.times(name) for name in done}


def tuner(team: Team, records: Records | None = None) -> Tuner:
    return Tuner(native(), 1, records or Records(), lambda target, threads: team, team.clock)


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=8), st.integers(1, 3), st.floats(0.1, 40))
def test_the_time_is_kept(costs: list[float], size: int, budget: float) -> None:
    team = Team(Clock(), costs, size)
    works = [spec(16 * (i + 1)) for i in range(len(costs))]
    outcome = tuner(team).tune(works, budget)
    assert team.clock.now <= budget + 1e-9
    ends = [0.0] * size  # when each worker is free again, jobs being given out in order
    for cost in costs:
        ends.sort()
        ends[0] += cost
    if max(ends) < budget - 1e-6:
        assert outcome == Outcome(measured=len(costs))
    assert outcome.measured + outcome.left == len(costs)
    assert team.log[-1] == "exit"
    assert bool(outcome.notes) == bool(outcome.left)


def test_a_kernel_is_recorded_when_it_is_done() -> None:
    """Seven seconds for jobs of three on two workers: two at 3 s, two at 6 s, the rest not, and 7 s are used up."""
    team, records = Team(Clock(), [3.0] * 6), Records()
    works = [spec(16 * (i + 1)) for i in range(6)]
    outcome = tuner(team, records).tune(works, 7.0)
    assert outcome == Outcome(measured=4, left=2)
    assert outcome.notes == ("the tuning time was up: 2 of 6 kernels were not measured",)
    assert [records.holds(native().name, w) for w in works] == [True] * 4 + [False] * 2
    assert team.clock.now == 7.0


def test_no_time_and_nothing_to_do_start_no_process() -> None:
    team = Team(Clock(), [])
    assert tuner(team).tune([spec()], 0.0) == Outcome(left=1)
    records = Records()
    records.add(record_of(native().name, spec(), ConvChoice(1, 1, 4), 1.0))
    assert tuner(team, records).tune([spec()], 9.0) == Outcome()
    assert team.log == []


def test_what_no_record_knows_comes_first(tmp_path: Path) -> None:
    under, works = Records(), [spec(16 * (i + 1)) for i in range(4)]
    for known in (works[0], works[2]):
        under.add(record_of(native().name, known, ConvChoice(1, 1, 4), 1.0))
    own = Records(tmp_path / "own.jsonl", under=under)
    own.add(record_of(native().name, works[3], ConvChoice(1, 1, 4), 1.0))
    seen: list[str] = []
    tuner(Team(Clock(), [1.0] * 3, 1), own).tune(works, 99.0, lambda done, total, what: seen.append(f"{done} {what}"))
    assert [s.split(">")[0] for s in seen if ">" in s] == ["0 32", "1 16", "2 48"]
    assert seen[-1] == "3 "
    assert len(own.table) == 4


def test_of_equally_fast_choices_the_first_is_taken_and_one_that_failed_never() -> None:
    fast = {0: 2.0, 1: 1.005, 2: 1.0, 4: 3.0}
    records = Records()
    outcome = tuner(Team(Clock(), [1.0, 1.0], times=lambda i: (fast, {})[i]), records).tune([spec(), spec(64)], 9.0)
    assert outcome == Outcome(measured=1, failed=1)
    assert outcome.notes == ("1 kernels could not be measured: each choice failed, crashed or hung",)
    record = records.find(native().name, spec())
    assert record is not None
    space = candidates(spec(), native())
    assert record.choice == tuple(vars(space[1]).values())
    assert [seconds for _, seconds in record.timings] == [2.0, 1.005, 1.0, 3.0]
    assert record.versions == versions()
    assert tuner(Team(Clock(), []), records).choose(spec()) == space[1]


def test_rivals_are_timed_by_turns_and_recorded_each_for_itself() -> None:
    """A job holds all that computes the same, however far apart its specs come; each gets its own best choice."""
    net = Net(1, 3, 14, 14)
    x = conv(net, conv(net, "x", 256, (1, 1)), 256, (1, 1))
    graph, target = outputs(net, conv(net, x, 256, (3, 3), pad=(1, 1, 1, 1))), native()
    works = sorted(workloads(graph, target, 1), key=lambda work: type(work).__name__)
    team, records = Team(Clock(), [1.0] * len(works), times=lambda name: {}), Records()

    def times(name: int) -> Mapping[int, float]:
        """The last choice of each spec is the fastest."""
        return {i: 1.0 / (1 + i) for i in team.given[name]}

    team.times = times
    assert tuner(team, records).tune(works, 99.0) == Outcome(measured=len(works))
    held = [{type(spec) for spec, _ in kernels.values()} for kernels in team.given.values()]
    assert {ConvSpec, StrassenSpec} in held
    assert {ConvSpec, WinogradSpec} in held
    assert len(held) == len(works) - 2
    for work in works:
        record, space = records.find(target.name, work), candidates(work, target)
        assert record is not None
        assert record.choice == tuple(vars(space[-1]).values())
        assert len(record.timings) == len(space)
        assert list(dict(record.timings)) == [tuple(vars(c).values()) for c in space]


def test_the_fastest_that_was_measured_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of kernels that compute the same; of one that has a single choice the estimate, where no other was measured."""
    tuner, other = Tuner(native(), 1, Records(None)), spec(64)
    assert tuner.least([spec(), other]) is None
    for one, seconds in ((spec(), 3.0), (spec(16), 2.0)):
        tuner.records.add(record_of(tuner.name(one), one.workload(), candidates(one, native())[0], seconds))
    assert tuner.least([spec(), spec(16), other]) == 2.0
    module = import_module("secateur.codegen.tune.tuner")
    monkeypatch.setattr(module, "candidates", lambda *_: [ConvChoice(1, 1, 4)])
    assert tuner.least([other]) == other.estimate(native())
    assert tuner.least([other, spec()]) == 3.0


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    path, clock = tmp_path / "r.jsonl", Clock()
    team = Team(clock, [1.0] * 4, 1)
    rounds = itertools.count()

    def wait(seconds: float) -> dict[int, Mapping[int, float]]:
        if next(rounds) == 2:
            raise KeyboardInterrupt
        return Team.wait(team, seconds)

    team.wait = wait  # type: ignore[method-assign]
    outcome = tuner(team, Records(path)).tune([spec(16 * (i + 1)) for i in range(4)], 99.0)
    assert outcome == Outcome(measured=2, left=2, interrupted=True)
    assert outcome.notes == ("tuning was interrupted: 2 of 4 kernels were not measured",)
    assert len(Records(path).table) == 2
    assert team.log[-1] == "exit"


def test_a_place_that_cannot_be_written_to_is_found_before_the_work(tmp_path: Path) -> None:
    team = Team(Clock(), [1.0])
    with pytest.raises(InputError, match="its folder does not exist"):
        tuner(team, Records(tmp_path / "none" / "r.jsonl")).tune([spec()], 9.0)
    assert team.log == []


def test_the_nearest_shape_says_so() -> None:
    choice = candidates(spec(64), native())[3]
    records, mine = Records(), tuner(Team(Clock(), []))
    mine.records = records
    records.add(record_of(native().name, spec(48), choice, 1.0))
    records.add(record_of(native().name, spec(512), ConvChoice(1, 1, 1, "pixels"), 1.0))
    assert mine.choose(spec(64)) == choice
    assert mine.notes == ("1 kernel was not measured, tiled like the nearest shape: 64>32 1x1 8x8",)
    assert mine.choose(spec(48)) == choice
    assert len(mine.notes) == 1
    for ci in (65, 66, 67):
        mine.choose(spec(ci))
    (note,) = mine.notes
    assert note == ("4 kernels were not measured, tiled like the nearest shape: 64>32 1x1 8x8, 65>32 1x1 8x8, "
                    "66>32 1x1 8x8, ..")  # fmt: skip


def test_a_guess_from_another_family_says_so_and_is_measured_anew() -> None:
    choice = candidates(spec(), native())[3]
    records = Records(family="maker 1/2")
    records.add(replace(record_of(native().name, spec(), choice, 1.0), family="other 3/4"))
    mine = tuner(Team(Clock(), [1.0]), records)
    assert mine.choose(spec()) == choice
    assert mine.notes == ("1 kernel is as was best on other 3/4, a first guess for maker 1/2; tune to measure here",)
    assert mine.tune([spec()], 9.0) == Outcome(measured=1)
    record = records.find(native().name, spec())
    assert record is not None
    assert record.family == "maker 1/2"


def test_a_choice_that_the_space_has_not_is_not_taken() -> None:
    records, mine = Records(), tuner(Team(Clock(), []))
    mine.records = records
    good = record_of(native().name, spec(), ConvChoice(1, 1, 4), 1.0)
    for strange in ((99, 99, 99, "blocks", True), (1,), ("a", None, [], 0, 0)):
        records.add(replace(good, choice=strange))
        assert mine.choose(spec()) == candidates(spec(), native())[0]


def test_tuning_keeps_to_its_records(tmp_path: Path) -> None:
    path, graph, seen = tmp_path / "r.jsonl", draw(CHAIN), []
    x = np.ones((1, 3, 8, 8), np.float32)
    lib = codegen.build(graph, tune=60, records=path, progress=lambda done, total, what: seen.append((done, total)))
    np.testing.assert_allclose(lib(x), codegen.build(graph)(x), rtol=1e-4, atol=1e-4)
    assert seen[-1][0] == seen[-1][1] > 0
    assert not any("tiled like" in note or "tuning" in note for note in lib.metadata.notes)
    measured = path.read_text()
    codegen.build(graph, tune=60, records=path)
    outcome, notes = codegen.tune(graph, 60, path)
    assert (outcome, notes) == (Outcome(), ())
    assert path.read_text() == measured, "measured again what a record holds"


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.jsonl")), ids=lambda p: p.stem)
def test_shipped_records_hold(file: Path) -> None:
    """Whoever raises a template's revision, or TVM's version, ships records anew: bench/speed/ship_records.py."""
    target = codegen.TARGETS[file.stem]
    records = open_records(target, file)
    assert records.notes == []
    assert {key[0] for key in records.table} <= {target.name}
    assert len(records.table) == len(file.read_text().splitlines()), "a workload is in it twice"
    assert not any(record.timings for record in records.table.values())
    assert all(record.family for record in records.table.values()), "on which processor was it measured?"


def test_shipped_records_are_consulted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("secateur.codegen.tune.tuner"), "SHIPPED", tmp_path)
    graph, here = draw(CHAIN), replace(native(), name="t")
    seen: list[Any] = []
    for work in workloads(graph, here, 1):
        seen.append(candidates(work, here)[-1])
        revision = templates(FAMILIES)[type(work)].revision
        Records(tmp_path / "t.jsonl").add(record_of("t", work, seen[-1], 1.0, versions=versions(), revision=revision))
    mine = Tuner(here, 1, open_records(here, None))
    assert [mine.choose(work) for work in workloads(graph, here, 1)] == seen
    assert mine.notes == ()
