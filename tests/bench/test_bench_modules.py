"""The script that sends modules through the whole journey: it must see what is right, wrong and rightly refused."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
import torch
from torch import nn

from bench.nets.modules.kind import Kind, between, normal
from bench.reach import modules
from bench.reach.module_journey import Journey, Wrong, relative
from bench.reach.module_masks import Inapplicable, masked_run
from secateur.ir.frontends.torch.capture import capture


def test_every_kind_has_a_name_of_its_own_and_runs_as_it_is() -> None:
    names = [kind.name for kind in modules.KINDS]
    assert len(set(names)) == len(names)
    for kind in modules.KINDS[::9]:
        torch.manual_seed(0)
        module = kind.make().eval()
        with torch.no_grad():
            module(*kind.inputs())
            if kind.other is not None:
                module(*kind.other())


def test_the_recipe_alone_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    journey = Journey(Kind("plain", lambda: between(nn.Conv2d(8, 8, 3, 1, 1), 8), normal((1, 3, 8, 8))))
    journey.prune()
    journey.alone()
    assert journey.slim is not None
    made = json.loads(journey.slim.recipe.to_json()) | {"weights": {}}
    monkeypatch.setattr(type(journey.slim.recipe), "to_json", lambda self: json.dumps(made))
    with pytest.raises(Wrong, match="masked original"):
        journey.alone()


def test_a_recipe_that_speaks_of_a_part_of_a_call_says_nothing() -> None:
    """Rows picked from a picture by several indices are gathered from its flattened form."""

    class Picks(nn.Module):
        def forward(self, x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
            return x[:, :, i, i].sum(-1)

    x, i = torch.randn(1, 3, 4, 4), torch.tensor([0, 3])
    (name,) = (n.name for n in capture(Picks(), (x, i)).module.graph.nodes if "index" in n.name)
    mixing = {"node": name, "input": 0, "axis": 0, "kept": [0, 40], "statistics": False}
    with pytest.raises(Inapplicable, match="another shape"):
        masked_run(Picks(), (x, i), {"weights": {}, "mixing": [mixing]})


def test_a_refusal_is_right_where_the_kind_states_its_sentence() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("past", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.past = self.past + x.mean()
            return x + self.past

    kind = Kind("stateful", Stateful, normal((1, 3)))
    for expect, verdict in (({}, "refused"), ({"prune": "read by the next call"}, "expected")):
        told = io.StringIO()
        modules.travel(dataclasses.replace(kind, expect=expect), 0, told)
        rows = [json.loads(line) for line in told.getvalue().splitlines()]
        assert [row["verdict"] for row in rows if "verdict" in row] == [verdict]


def test_differences() -> None:
    one = torch.tensor([2.0, float("inf")])
    assert relative(one, one) == 0
    assert relative(one, torch.tensor([1.0, float("inf")])) == 0.5
    assert relative(one, torch.tensor([2.0, 2.0])) == float("inf")
