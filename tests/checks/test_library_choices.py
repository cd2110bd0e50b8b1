"""Libraries of networks that choose among nearly equal scores: judged part by part, and with the library's choice."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("tvm", reason="code generation needs apache-tvm")

from secateur.checks.library import Check
from secateur.checks.library_choices import as_high, between, decided
from secateur.codegen.parted import Part, PartedLibrary
from secateur.deploy import build
from secateur.ir.frontends.torch.trace import trace


class Queries(nn.Module):
    """Rows of a table, by the best of 64 scores that differ by roundings alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.score, self.last = nn.Linear(16, 32), nn.Linear(32, 64), nn.Linear(8, 4)
        self.table = nn.Parameter(torch.randn(64, 8))
        with torch.no_grad():
            self.score.weight.copy_(self.score.weight[0] * (1 + 3e-8 * torch.randn(64, 32)))
            self.score.bias.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        best = torch.topk(self.score(F.relu(self.first(x))), 8)[1]
        result: Tensor = self.last(self.table[best])
        return result


def test_roundings_decide_and_the_notes_say_so_but_what_is_wrong_besides_is_a_fault() -> None:
    torch.manual_seed(0)
    graph = trace(Queries().eval(), (torch.randn(2, 16),))
    library = build(graph)
    assert isinstance(library, PartedLibrary)
    assert any(note.startswith("roundings decide what aten.topk.default") for note in library.metadata.notes)
    check, parts = Check(graph), library.parts
    assert not check.passed(check.outputs(library)) and decided(check, library, 1e-4)

    def spoilt(part: Part, factor: float) -> Part:
        def run(*given: Any) -> tuple[Any, ...]:
            found = part.run(*given)
            return tuple((a * factor).astype(a.dtype) for a in (found if isinstance(found, tuple) else (found,)))

        return dataclasses.replace(part, run=run)

    for at, factor in enumerate((1.01, 0, 1.01)):  # scores that are off; the first one eight times; a layer after it
        library.parts = (*parts[:at], spoilt(parts[at], factor), *parts[at + 1 :])
        assert not decided(check, library, 1e-4)


def test_parts_that_are_right_each_must_be_right_together(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    graph = trace(Queries().eval(), (torch.randn(2, 16),))
    library = build(graph)
    assert isinstance(library, PartedLibrary)
    asked = []

    def accepted(self: Check, outputs: object, limit: float) -> bool:
        asked.append(self.original.outputs)
        return len(asked) <= len(library.parts)

    check = Check(graph)
    monkeypatch.setattr(Check, "accepted", accepted)
    assert not decided(check, library, 1e-4)
    assert asked[-1][: len(graph.outputs)] == graph.outputs


def test_equal_scores_are_chosen_in_any_order_but_each_once() -> None:
    class Best(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.topk(x, 2)[1]

    graph = trace(Best(), (torch.zeros(1, 3),), dynamic_batch=False)
    (node,) = (n for n in graph.nodes if n.op == "opaque")
    scores, places = str(node.inputs[0]), node.outputs[1].name
    for chosen, right in (([0, 1], True), ([1, 0], True), ([0, 0], False), ([0, 2], False)):
        values = {scores: np.float32([[1, 1, 0]]), places: np.array([chosen])}
        assert as_high(between(graph, values, [scores], [places]), values) == right
