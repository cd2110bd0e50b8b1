"""Policies: file, spec line and preset say the same, and mistakes are named."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import secateur
from bench.reach import mutate_recipes
from secateur.arguments import checkpoints_of
from secateur.ir import Graph, InputError, PassError
from secateur.passes.compensate import FoldConstants, Refit
from secateur.passes.notes import Coupling, Importance
from secateur.passes.score import L1, Criterion, OfWeights
from secateur.policy import Policy, from_spec, from_toml
from support.nets import residual

GLOBS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=8)
POLICIES = st.builds(
    Policy,
    criterion=st.sampled_from(["l1", "l2", "slimming", "random{seed=7}"]),
    method=st.sampled_from(["uniform", "global", "global{floor=20%}", "knapsack{rounds=3}"]),
    budget=st.tuples(
        st.sampled_from(["macs", "params", "bytes"]),
        st.floats(0.001, 1) | st.integers(1, 10**12),
    ),
    round_to=st.just("auto") | st.integers(1, 64),
    protect=st.lists(GLOBS, max_size=2).map(tuple),
)


@given(POLICIES)
def test_file_and_spec_round_trip(policy: Policy) -> None:
    assert from_toml(policy.to_toml()) == policy
    assert from_spec(policy.spec) == policy


def test_presets() -> None:
    assert Policy.parse("l1").spec == "l1,global{macs=50%},slim"
    assert Policy.parse("none").spec == "none"
    assert from_toml(Policy.parse("none").to_toml()) == Policy.parse("none")
    assert [step.name for step in Policy.parse("l1").passes()] == ["canonicalize", "couple", "l1", "global", "slim"]
    assert [step.name for step in Policy.parse("none").passes()] == ["canonicalize"]


def test_the_file_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "my policy.toml"
    path.write_text(
        '[budget]\nmacs = "50%"\n[score]\ncriterion = "l2"\n[allocate]\nmethod = "global"\nround_to = "auto"\n'
        'floor = 0.2\n[protect]\nlayers = ["head.*"]\n[compensate]\nrefit = false\n'
    )
    assert Policy.parse(str(path)) == Policy("l2", "global{floor=20%}", ("macs", 0.5), "auto", ("head.*",))


def test_budget_overrides() -> None:
    assert Policy().with_budget("params", "30%").spec == "l1,global{params=30%},slim"
    assert Policy().with_budget("macs", "120M").budget == ("macs", 120_000_000)
    assert Policy().with_budget("bytes", "5MB").budget == Policy().with_budget("bytes", "5M").budget


def test_the_seed_goes_to_criteria_that_draw() -> None:
    assert Policy("random").passes(seed=5)[2].seed == 5  # type: ignore[attr-defined]
    assert Policy("random{seed=2}").passes(seed=5)[2].seed == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[budgets]\nmacs = 0.5", "unknown section 'budgets'.*did you mean budget"),
        ("[budget]\nmac = 0.5", "no budget 'mac'.*did you mean macs"),
        ("[budget]\nmacs = 0.5\nparams = 0.5", "names 2 budgets"),
        ("[budget]\nmacs = 'half'", "is not an amount"),
        ("[budget]\nmacs = 1.5", "share"),
        ("[score]\ncriterion = 'l3'", "no pass 'l3'.*did you mean"),
        ("[score]\ncriterion = 'global'", "no pass 'global'"),
        ("[score]\ncriterion = 'l1'\np = 2", "no option 'p'"),
        ("[allocate]\nmethod = 'knapsak'", "no pass 'knapsak'"),
        ("[allocate]\nround_too = 8", "no option 'round_too'.*round_to"),
        ("[protect]\nlayer = []", "unknown key of \\[protect\\] 'layer'.*layers"),
        ("macs = 0.5", "unknown section 'macs'"),
    ],
)
def test_mistakes_in_a_file_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_toml(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slim", "names no criterion"),
        ("l1,l2", "'l2' does not fit"),
        ("l1,global{macs=50%,params=50%}", "names 2 budgets"),
        ("l1,global{macs=50%,channels=50%}", "names 2 budgets"),
        ("l1,knapsack{channels=50%}", "no option 'channels'"),
        ("taylr", "no pass 'taylr'"),
    ],
)
def test_mistakes_in_a_spec_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Policy.parse(text)


def test_a_share_of_channels_is_a_budget() -> None:
    policy = Policy.parse("l1,uniform{channels=50%}")
    assert policy.budget == ("channels", 0.5)
    assert from_spec(policy.spec) == from_toml(policy.to_toml()) == policy
    with pytest.raises(InputError, match="a share such as 50%"):
        Policy().with_budget("channels", "120M")


def test_a_latency_is_in_milliseconds() -> None:
    policy = Policy("l1", "global{rounds=2}").with_budget("latency_ms", "12.5")
    assert policy.spec == "l1,global{latency_ms=12.5,rounds=2},slim"
    assert from_spec(policy.spec) == from_toml(policy.to_toml()) == policy
    assert Policy().with_budget("latency_ms", "0.4") == from_toml("[budget]\nlatency_ms = 0.4")
    with pytest.raises(InputError, match="milliseconds above 0"):
        Policy().with_budget("latency_ms", -1)


def test_a_speedup_is_in_times() -> None:
    policy = Policy("l1", "knapsack{levels=8}").with_budget("speedup", "2x")
    assert policy.spec == "l1,knapsack{speedup=2.0,levels=8},slim"
    assert from_spec(policy.spec) == from_toml(policy.to_toml()) == policy
    assert Policy().with_budget("speedup", "1.5") == from_toml('[budget]\nspeedup = "1.5x"')
    with pytest.raises(
        InputError, match=r"budget speedup='fast' is not an amount; write how many times as fast \(2x\)"
    ):
        Policy().with_budget("speedup", "fast")
    for wrong in ("1x", "0.5", "-2x"):
        with pytest.raises(InputError, match="how many times as fast, above 1, such as 2x"):
            Policy().with_budget("speedup", wrong)


def test_compensation_is_part_of_a_policy() -> None:
    policy = from_toml(
        "[compensate]\nrefit = true\nreestimate_bn = false\nfold_constants = 'fold_constants{varying=false}'"
    )
    assert policy.compensate == (Refit(), FoldConstants(varying=False))
    assert from_toml(policy.to_toml()) == policy
    assert Policy.parse(policy.spec) == policy
    with pytest.raises(InputError, match="refitt"):
        from_toml("[compensate]\nrefitt = true")


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml' cannot be read"):
        Policy.parse("nowhere.toml")
    broken = tmp_path / "b.toml"
    broken.write_text("[budget\n")
    with pytest.raises(InputError, match=r"b\.toml'"):
        Policy.parse(broken)


@pytest.mark.parametrize("text", ["none", "fold_bn"])
def test_a_budget_that_nothing_meets_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"prunes nothing, so the budget macs=0\.5 cannot be met; name a criterion"):
        Policy.parse(text).with_budget("macs", 0.5)
    with pytest.raises(InputError, match=r"prunes nothing, so the budget \[budget\] macs = '50%' cannot be met"):
        from_toml('[budget]\nmacs = "50%"\n[score]\ncriterion = "none"\n')
    with pytest.raises(InputError, match=r"\[compensate\] refit"):
        from_toml('[score]\ncriterion = "none"\n[compensate]\nrefit = true\n')
    assert from_toml(Policy.parse(text).to_toml()) == Policy.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rewrite]\npasses = [0.5]", r"\[rewrite\] passes holds 0.5, which is not text"),
        ("[rewrite]\npasses = true", r"\[rewrite\] passes is True; write a list of text"),
        ("[protect]\nlayers = 7", "layers is 7"),
        ("[score]\ncriterion = 'none'\n[protect]\nlayers = [{}]", "layers holds {}"),
        ("[compensate]\nrefit = 3", "refit = 3: write true, false, or the pass"),
        ("[compensate]\nrefit = 'refit{ridge=nan}'", "'ridge'.*takes"),
        ("[budget]\nmacs = nan", "budget macs=nan"),
        ("[budget]\nmacs = [1]", "is not an amount"),
        ("[score]\ncriterion = 'random'\nseed = -1", "'seed'.*from 0"),
        ("[score]\ncriterion = 'random'\nseed = 1e400", "'seed'"),
        ("[allocate]\nrounds = 99999999999999999999", "'rounds'.*from 0 to 2\\^53"),
        ("[allocate]\nmethod = ['global']", "there is no pass"),
    ],
)
def test_values_of_the_wrong_kind_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_toml(text)


def test_an_option_stands_once_and_lists_hold_text() -> None:
    with pytest.raises(InputError, match="'floor' is given twice"):
        from_spec("l1,global{floor=20%,floor=30%}")
    assert from_spec("couple{protect=[0,a]},l1").protect == ("0", "a")
    with pytest.raises(InputError, match="'protect' is 'abc'"):
        Policy(protect="abc")  # type: ignore[arg-type]


def test_mutants_are_refused_or_mean_what_they_say() -> None:
    """Read and printed; that they compile as well is for bench/reach/mutate_recipes.py, and for a few here."""
    for number in range(2000):
        assert mutate_recipes.of_policy(number, quick=number >= 20) in ("refused", "accepted"), number


@dataclass(frozen=True)
class Largest(OfWeights):
    """The largest weight of a channel's filters, from its producers alone: a criterion of a user's own."""

    name: ClassVar[str] = "largest"
    power: float = 1.0

    def __call__(self, graph: Graph) -> Graph:
        coupling = graph.note(Coupling)
        assert coupling is not None
        scores = np.zeros(coupling.size)
        for slot in coupling.slots:
            if slot.role == "out" and graph.weights[slot.weight].ndim > 1:
                top = np.abs(graph.weights[slot.weight]).reshape(len(slot.units), -1).max(1) ** self.power
                np.maximum.at(scores, slot.units[slot.units >= 0], top[slot.units >= 0])
        return graph.with_note(Importance(scores, self.name))


class Plain(Largest):
    """One that is not a dataclass of its own."""

    name = "plain"


@pytest.mark.parametrize(("criterion", "line"), [(Largest(power=2.0), "largest{power=2.0}"), (Plain(), "plain")])
def test_a_criterion_of_the_users_own_prunes(criterion: Criterion, line: str) -> None:
    policy = Policy(criterion=criterion, method="global{rounds=2}", budget=("macs", 0.6))
    done = secateur.compile(residual(), policy, round_to=1, params="70%")
    assert done.report.policy == f"{line},global{{params=70%,round_to=1,rounds=2}},slim"
    assert done.report.verification is not None
    assert done.report.verification["passed"]
    assert done.report.budget is not None
    assert done.report.budget["achieved"] <= 0.7
    with pytest.raises(InputError, match=f"'{criterion.name}' is code of your own"):
        policy.to_toml()


@pytest.mark.parametrize("wrong", [Largest, object(), 3, L1])
def test_what_is_no_criterion_is_named(wrong: object) -> None:
    with pytest.raises(InputError, match="lacks"):
        Policy(criterion=wrong)  # type: ignore[arg-type]


class Short(Largest):
    """One that scores too few units."""

    name = "short"

    def __call__(self, graph: Graph) -> Graph:
        return graph.with_note(Importance(np.ones(3), self.name))


def test_scores_that_do_not_fit_the_units_are_named() -> None:
    with pytest.raises(PassError, match=r"criterion 'short' left scores of shape \[3\]; 'global' takes one number"):
        secateur.compile(residual(), Policy(Short()))


def test_a_folder_for_states_needs_a_pass_that_keeps_one(tmp_path: Path) -> None:
    long = Policy.parse("l1,global,slim,refit,distill{steps=1}")
    assert checkpoints_of(tmp_path / "a" / "b", long) == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    assert checkpoints_of(None, Policy.parse("l1")) is None
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        checkpoints_of(tmp_path / "file", long)
    with pytest.raises(InputError, match="has none; add it"):
        checkpoints_of(tmp_path, Policy.parse("l1"))
