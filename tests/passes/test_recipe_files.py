"""Recipe files: what is read is checked, by itself and against the network, and every mistake is named."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import secateur
from bench.reach import mutate_recipes
from secateur.ir import InputError
from secateur.passes.compensate import ReestimateBN, Refit
from secateur.passes.recipe import Recipe, Steps
from secateur.passes.rewrite.separable import Separable
from support.nets import chain, residual

MUTANTS = 2000


@pytest.fixture(scope="module")
def body() -> dict[str, Any]:
    """A recipe with a grouped layer, a mixing node and coupled weights, as JSON."""
    return copy.deepcopy(mutate_recipes.bases()[0])


def edited(body: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> Recipe:
    mine = copy.deepcopy(body)
    change(mine)
    return Recipe.from_json(json.dumps(mine), "r.json")


def put(*path: Any) -> Callable[[dict[str, Any]], object]:
    """Set what stands at the path to its last entry."""
    *keys, last, value = path

    def change(holder: Any) -> None:
        for key in keys:
            holder = holder[key]
        holder[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("schema", 2), "recipe schema 2, this version reads 1"),
        (put("schema", "1"), r"Expected `int`, got `str` - at `\$\.schema`"),
        (put("weights", []), "Expected `object`, got `array`"),
        (put("weights", "c.weight", 7), "weight 'c.weight': Expected `object`, got `int`"),
        (put("weights", "c.weight", "kept", "1", [0, 1.5]), "weight 'c.weight'.*got `float`"),
        (put("weights", "c.weight", "kept", "1", [True]), "weight 'c.weight'.*got `bool`"),
        (put("weights", "c.weight", "kept", "1", []), "'c.weight', axis 1: nothing is kept"),
        (put("weights", "c.weight", "kept", "1", [0, 99]), "axis 1: index 99 lies outside of 0 to 7"),
        (put("weights", "c.weight", "kept", "1", [-1, 2]), "index -1 lies outside"),
        (put("weights", "c.weight", "kept", "1", [2, 1]), "index 1 follows 2; indices rise"),
        (put("weights", "c.weight", "kept", "1", [1, 1]), "index 1 follows 1.*each stands once"),
        (put("weights", "c.weight", "kept", "1", [0, [1]]), "some entries are indices and some are lists"),
        (put("weights", "c.weight", "kept", "9", [0]), "axis 9.*axes are 0 to 3"),
        (put("weights", "c.weight", "kept", "-1", [0]), "axis -1"),
        (put("weights", "b.weight", "kept", "1", [[0], [1], [2]]), "3 lists, one per group"),
        (put("weights", "b.weight", "kept", "1", [[0], [1, 2]]), r"groups keep \[1, 2\] channels"),
        (put("weights", "new.weight", {"kept": {"0": [0]}}), "'new.weight' has no shape under 'original'"),
        (put("original", "weights", "c.weight", [12, -8, 3, 3]), "sizes are from 1"),
        (put("original", "sha256", "abc"), "has 64 hexadecimal digits"),
        (put("digests", {"c.weight": "x" * 64}), "'digests' of weight 'c.weight'"),
        (put("mixing", [{"node": "t"}]), "entry 0 of 'mixing': Object missing required field"),
        (put("mixing", [{"node": "t", "input": 0, "axis": 1, "kept": [0], "more": 1}]), "unknown field"),
        (lambda b: b["mixing"].append(b["mixing"][0]), "stands twice under 'mixing'"),
        (put("rewrites", ["l1", "slim"]), "'rewrites' lists rewrites.*no pass 'l1'"),
        (put("rewrites", ["slim", "low_rank"]), "no pass 'low_rank'"),
        (put("rewrites", ["low_rank{ratio=much}", "slim"]), "option 'ratio'"),
        (put("rewrites", ["slim", "refit{ridge=-1}"]), "takes numbers from 0"),
        (put("rewrites", [3]), "got `int`"),
        (lambda b: b.pop("original"), "missing required field `original`"),
    ],
)
def test_mistakes_in_a_file_are_named(
    body: dict[str, Any], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(InputError, match=f"r.json.*{message}"):
        edited(body, change)


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", "[" * 100_000, '{"schema": NaN}', "\ud800", '"' * 7])
def test_what_is_no_recipe(text: str) -> None:
    with pytest.raises(InputError, match="not a secateur recipe"):
        Recipe.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b["weights"]["n.bias"]["kept"].pop("0"),
         "'n.bias', axis 0 is not listed, but loses channel .* with 'a.weight', axis 0"),
        (lambda b: b["weights"].pop("b.weight"), "'b.weight', axis [01] is not listed"),
        (put("weights", "n.bias", "kept", "0", [0, 1, 2, 3, 4, 5]), "axis 0 keeps channels that it loses with"),
        (put("weights", "c.weight", "kept", "2", [0, 1]), "no channel of 'small' can be removed along it"),
        (lambda b: b["weights"]["b.weight"]["kept"].update({"1": [0, 1]}), "no lists of groups; 'b' has 2 groups"),
        (put("weights", "y.weight", "kept", "0", [0, 1]), "'y.bias', axis 0 is not listed, but loses channel 2"),
        (lambda b: b["mixing"].clear(), "node 't'.*under 'mixing'"),
        (lambda b: b["mixing"][0].update(node="tt"), "has no node 'tt' .did you mean t"),
        (lambda b: b["mixing"][0].update(axis=3), "node 't'.*(no channel|not what the weights leave)"),
        (lambda b: b["original"]["weights"].update({"a.bias": [9]}), r"'a.bias' of 'small' has shape \(8,\)"),
    ],
)  # fmt: skip
def test_a_recipe_is_all_of_a_removal_that_the_network_allows(
    body: dict[str, Any], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    """A part of a coupled set is refused by the slot that is missing, not by a difference of the outputs."""

    with pytest.raises(InputError, match=message):
        secateur.apply(edited(body, change), mutate_recipes.network())


def test_the_recipe_of_another_network_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"has no weight.*made for another network"):
        secateur.apply(edited(body, lambda b: None), chain())


def test_mutants_end_in_an_error_or_in_what_they_say() -> None:
    row, bad = mutate_recipes.survey("recipes", 0, MUTANTS, quick=True)
    assert not bad
    assert row["refused"] + row["accepted"] == MUTANTS
    assert row["accepted"] > MUTANTS // 50  # else only reading would be tested


def test_apply_gives_what_compile_gives(tmp_path: Path) -> None:
    done = secateur.compile(residual(), "l1,uniform{macs=50%,round_to=1},slim")
    done.recipe.save(tmp_path / "r.json")
    for again in (secateur.apply(tmp_path / "r.json", residual()), secateur.compile(residual(), recipe=done.recipe)):
        assert isinstance(again, secateur.Compiled)
        assert again.recipe.to_json() == done.recipe.to_json()
        assert all(np.array_equal(w, done.graph.weights[n]) for n, w in again.graph.weights.items())
        assert again.report.after == done.report.after
        assert (again.report.verification or {})["passed"]
        assert {row["state"] for row in again.report.layers} >= {"pruned"}
        again.save(tmp_path / "again.onnx")
        assert secateur.verify(residual(), tmp_path / "again.onnx", again.recipe).passed
        assert list(again.module().state_dict())


def test_apply_says_that_compensation_is_not_repeated() -> None:
    data = [np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)]
    done = secateur.compile(chain(), "l1,uniform{macs=60%,round_to=1},slim,refit", calibration=data)
    again = secateur.apply(done.recipe, chain())
    assert any("not repeated, since it needs data: refit" in remark for remark in again.report.remarks)
    assert again.recipe.rewrites == ()
    assert secateur.verify(chain(), again, again.recipe).passed


def test_what_an_earlier_run_left_on_a_graph_does_not_count() -> None:
    done = secateur.compile(chain(), "l1,uniform{macs=60%,round_to=1},slim")
    again = secateur.compile(done.graph, "none")
    assert not again.recipe.weights
    assert again.report.before == done.report.after
    with pytest.raises(InputError, match="policy, macs cannot be given as well"):
        secateur.compile(chain(), "l2", macs=0.5, recipe=done.recipe)


def test_files_follow_the_users_mask(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        secateur.compile(chain()).recipe.save(tmp_path / "r.json")
    finally:
        os.umask(mask)
    assert (tmp_path / "r.json").stat().st_mode & 0o777 == 0o644
    with pytest.raises(InputError, match="cannot write"):
        secateur.compile(chain()).recipe.save(tmp_path / "no" / "r.json")


def test_the_passes_around_the_cut_are_read_back_with_their_options() -> None:
    steps = Steps((Separable(rank=2),), (Refit(ridge=0.1), ReestimateBN()))
    known = Recipe("", {}, {}, steps=steps)
    assert known.rewrites == ("separable{rank=2}", "slim", "refit{ridge=10%}", "reestimate_bn")
    assert Recipe.from_json(known.to_json()).steps == steps
    assert Recipe("", {}, {}, steps=Steps(after=(Refit(),))).rewrites == ("refit",)
