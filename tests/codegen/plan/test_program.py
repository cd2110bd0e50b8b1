"""A program whose tiling is left open: settled later, it is the one that planning with the choices makes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from secateur import codegen
from secateur.codegen.cpu_backend import CPU
from secateur.codegen.kernels.conv import plan as conv
from secateur.codegen.kernels.winograd import plan as winograd
from secateur.codegen.kernels.winograd.spec import WinogradSpec
from secateur.codegen.plan import lower as lowering
from secateur.codegen.plan.program import Program, Table
from secateur.codegen.plan.text import show
from secateur.codegen.records import Records
from secateur.codegen.targets import TARGETS
from secateur.codegen.tune.tuner import Outcome, Tuner
from support.alternatives import always
from support.nets import RESIDUAL, draw
from support.planned import NETWORKS

pytest.importorskip("tvm", reason="code generation needs apache-tvm")


def contents(program: Program) -> tuple[Any, ...]:
    """All that code is made of: specs, choices, steps, constants, and numbers where everything lies."""
    words, weights = program.arena.place(), program.lay_out().tobytes()
    tables = [a.resolve().tobytes() for call in program.calls for a in call.arguments if isinstance(a, Table)]
    offsets = [getattr(a, "offset", a) for call in program.calls for a in call.arguments if not isinstance(a, Table)]
    calls = [(call.spec, call.choice, call.label, call.step, call.worker) for call in program.calls]
    return words, weights, tables, offsets, calls, [(b.first, b.last, b.offset) for b in program.arena.buffers]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_settled_later_is_planned_at_once(name: str, threads: int) -> None:
    target = TARGETS["x86-avx512"]
    choose = Tuner(target, threads, Records()).choose
    at_once = lowering.lower(NETWORKS[name](), target, threads, choose, CPU)
    later = lowering.lower(NETWORKS[name](), target, threads, None, CPU)
    assert later.open or all(call.choice is None for call in at_once.calls)
    later.settle(choose)
    assert not later.open
    assert show(later, CPU.families) == show(at_once, CPU.families)
    assert contents(later) == contents(at_once)


def test_scratch_of_an_algorithm_belongs_where_its_call_stands() -> None:
    """Winograd's kernels take memory of their own, of a size that is known when they are chosen."""
    with always(WinogradSpec) as taken:
        test_settled_later_is_planned_at_once("residual", 1)
    assert len(taken) > 2


def test_a_tuned_build_plans_and_packs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        usual = getattr(module, name)

        def count(*args: Any) -> Any:
            done[name] += 1
            return usual(*args)

        monkeypatch.setattr(module, name, count)

    counted(lowering, "prepare")
    counted(conv, "pack")
    counted(winograd, "pack_winograd")
    measured: list[int] = []
    monkeypatch.setattr(Tuner, "tune", lambda self, specs, *_: measured.append(len(specs)) or Outcome())
    library = codegen.build(draw(RESIDUAL), tune=1.0)
    kernels = library.metadata.kernels
    assert measured and measured[0] > 0
    assert done["prepare"] == 1
    assert done["pack"] + done["pack_winograd"] == kernels.get("conv", 0) + kernels.get("winograd", 0) > 0
