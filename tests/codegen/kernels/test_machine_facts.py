"""What templates and plans know of a processor comes from its target: odd ones work, and others plan otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secateur.codegen.backends import backend_for
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.program import Program
from secateur.codegen.records import Records
from secateur.codegen.targets import TARGETS, Target, native
from secateur.codegen.tune.tuner import Tuner, candidates
from support.kernels import check
from support.network import Net
from support.planned import NETWORKS

pytest.importorskip("tvm", reason="code generation needs apache-tvm")

ODD = {"registers": 17, "l1": 7777, "l2": 123457, "fmas": 3, "latency": 7, "load": 3.3, "ahead": 5, "sharing": 999}


def plan(name: str, target: Target, threads: int = 1) -> Program:
    return lower(NETWORKS[name](), target, threads, Tuner(target, threads, Records()).choose, backend_for(target))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_processor_of_odd_sizes_computes_the_same(name: str) -> None:
    check(NETWORKS[name](), replace(native(), **ODD))


@pytest.mark.parametrize("fact", [{"registers": 17}, {"l2": 1 << 16}, {"load": 400.0}], ids=str)
def test_plans_follow_the_facts(fact: dict[str, int]) -> None:
    target = TARGETS["x86-avx512"]
    calls = [[(c.spec, c.choice) for c in plan("wide", t).calls] for t in (target, replace(target, **fact))]
    assert calls[0] != calls[1]


def test_small_caches_change_the_space_of_tiles() -> None:
    target = TARGETS["x86-avx512"]
    net = Net(1, 16, 8, 8)
    calls = lower(
        net.graph(net.conv("x", 48, 1)), target, 1, Tuner(target, 1, Records()).choose, backend_for(target)
    ).calls
    spec = next(call.spec for call in calls if isinstance(call.spec, ConvSpec))
    one, other = (candidates(spec, t)[0] for t in (target, replace(target, l1=256)))
    assert (one.outer, other.outer) == ("pixels", "blocks")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_target_plans_every_network(name: str, target: str) -> None:
    program = plan(name, TARGETS[target], 2)
    lanes = {c.spec.lanes for c in program.calls if hasattr(c.spec, "lanes")}
    assert lanes <= {TARGETS[target].lanes, 1}
