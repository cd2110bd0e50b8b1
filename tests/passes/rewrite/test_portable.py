"""Shuffles of slim networks are written without an index: channels stand in an order in which none is needed.

The file as it was and the recipe alone say what must come out, in ONNX Runtime.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import secateur
from bench.reach import onnx_reference
from secateur.ir import Array, Graph, InputError, Node, Value, reinfer
from secateur.passes.recipe import Recipe
from secateur.passes.rewrite.channel_order import freedom
from secateur.passes.rewrite.portable import Portable


def shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class First(nn.Module):
    """A ShuffleNet v1 unit: grouped, shuffled, depthwise, grouped, added to what came in."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.squeeze, self.norm = nn.Conv2d(width, width, 1, groups=groups, bias=False), nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.expand = nn.Conv2d(width, width, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y = shuffle(torch.relu(self.norm(self.squeeze(x))), self.groups)
        return torch.relu(x + self.expand(self.depthwise(y)))


class Second(nn.Module):
    """A ShuffleNet v2 unit: half of the channels go by, the others through a branch, then both are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.one, self.depthwise = nn.Conv2d(half, half, 1), nn.Conv2d(half, half, 3, padding=1, groups=half)
        self.norm, self.two = nn.BatchNorm2d(half), nn.Conv2d(half, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        by, through = x.chunk(2, 1)
        through = torch.relu(self.two(self.norm(self.depthwise(torch.relu(self.one(through))))))
        return shuffle(torch.cat([by, through], 1), 2)


def network(unit: Callable[[], nn.Module], count: int, width: int) -> nn.Module:
    torch.manual_seed(0)
    units = [unit() for _ in range(count)]
    stem = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    head = [nn.Conv2d(width, 20, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 5)]
    found = nn.Sequential(*stem, *units, *head)
    for layer in found.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(layer.weight, 0.5, 2)
    return found.eval()


def first() -> nn.Module:
    return network(lambda: First(54, 3), 2, 54)


def odd() -> nn.Module:
    """Groups whose width the groups do not divide: blocks of several sizes."""
    return network(lambda: First(60, 3), 2, 60)


def second() -> nn.Module:
    return network(lambda: Second(48), 4, 48)


@cache
def traced(make: Callable[[], nn.Module]) -> Graph:
    """The network, captured once for all tests."""
    return secateur.trace(make(), (torch.randn(2, 3, 8, 8),))


def written(make: Callable[[], nn.Module], policy: str, tmp_path: Path, **more: object) -> secateur.Compiled:
    """The network as a file, cut to half, and written: given.onnx, slim.onnx, slim.json."""
    secateur.save_onnx(traced(make), tmp_path / "given.onnx")
    slim = secateur.compile(tmp_path / "given.onnx", policy, **more)  # type: ignore[arg-type]
    slim.save(tmp_path / "slim.onnx")
    slim.recipe.save(tmp_path / "slim.json")
    return slim


def kinds(path: Path) -> Counter[str]:
    """Operators of a file, without those that compute sizes from a Shape."""
    nodes = onnx.load(path).graph.node
    sizes = {node.output[0] for node in nodes if node.op_type == "Shape"}
    return Counter(node.op_type for node in nodes if not sizes & set(node.input))


def feed(slim: secateur.Compiled) -> dict[str, Array]:
    x = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)
    return {slim.graph.inputs[0].name: x}


@pytest.mark.parametrize("make", [first, odd, second])
@pytest.mark.parametrize("policy", ["l1,global{macs=50%,round_to=1},slim", "random,uniform{macs=40%,round_to=1},slim"])
def test_the_file_holds_no_index_and_is_the_masked_original(
    make: Callable[[], nn.Module], policy: str, tmp_path: Path
) -> None:
    slim = written(make, policy, tmp_path)
    found = kinds(tmp_path / "slim.onnx")
    assert not found["Gather"]
    assert found["Transpose"] + found["Split"]
    given, recipe = onnx.load(tmp_path / "given.onnx"), json.loads((tmp_path / "slim.json").read_text())
    assert recipe["rewrites"] == ["portable"]
    want = onnx_reference.answer(onnx_reference.masked(given, recipe, feed(slim)), feed(slim))
    error, what = onnx_reference.difference(want, onnx_reference.answer(str(tmp_path / "slim.onnx"), feed(slim)))
    assert error < 1e-5, what


def test_shuffles_stay_grids_where_groups_keep_as_many(tmp_path: Path) -> None:
    written(first, "l1,uniform{macs=50%,round_to=1},slim", tmp_path)
    found = kinds(tmp_path / "slim.onnx")
    assert found["Transpose"] == 2
    assert not found["Split"] + found["Gather"]


@pytest.mark.parametrize("make", [odd, second])
def test_the_recipe_lists_channels_as_they_stand(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    written(make, "l1,global{macs=50%,round_to=1},slim", tmp_path)
    recipe = Recipe.load(tmp_path / "slim.json")
    old, new = ({t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / name).graph.initializer}
                for name in ("given.onnx", "slim.onnx"))  # fmt: skip
    cut = recipe.apply_state_dict(old)
    for name in recipe.weights:
        assert np.array_equal(cut[name], new[name]), name
    checked = secateur.verify(tmp_path / "given.onnx", tmp_path / "slim.onnx", recipe)
    assert checked.passed
    assert checked.compared.startswith("structure")
    again = secateur.apply(recipe, tmp_path / "given.onnx")
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "slim.onnx").read_bytes()
    assert again.recipe.to_json() == recipe.to_json()


def test_a_recipe_in_another_order_is_refused(tmp_path: Path) -> None:
    written(second, "l1,global{macs=50%,round_to=1},slim", tmp_path)
    body = json.loads((tmp_path / "slim.json").read_text())
    kept = body["weights"]["4.one.weight"]["kept"]["1"]
    kept[0], kept[1] = kept[1], kept[0]
    with pytest.raises(InputError, match=r"'4\.one\.weight', axis 1: its channels stand in another order"):
        secateur.apply(Recipe.from_json(json.dumps(body)), tmp_path / "given.onnx")
    kept[0] = kept[1]
    with pytest.raises(InputError, match="each stands once"):
        Recipe.from_json(json.dumps(body))
    body["rewrites"] = []
    with pytest.raises(InputError, match="indices rise"):
        Recipe.from_json(json.dumps(body))


@pytest.mark.parametrize("make", [odd, second])
@pytest.mark.parametrize("repair", ["refit", "reestimate_bn"])
def test_repairs_know_the_order(make: Callable[[], nn.Module], repair: str) -> None:
    data = [np.random.default_rng(i).standard_normal((8, 3, 8, 8)).astype(np.float32) for i in range(4)]
    policy = "l1,global{macs=50%,round_to=1},slim"
    graph = traced(make)
    plain, other = (secateur.compile(graph, f"{policy}{order},{repair}", calibration=data, holdout=0.0, trust=True)
                    for order in ("", ",portable{on=false}"))  # fmt: skip
    assert plain.recipe.portable
    assert not other.recipe.portable
    want, have = (np.asarray(net(**feed(net))) for net in (other, plain))
    assert np.abs(want - have).max() < 1e-4 * np.abs(want).max()


class Dense(nn.Module):
    """The first unit of a stage of ShuffleNet v1: nothing is grouped before the shuffle."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.squeeze, self.norm = nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.expand = nn.Conv2d(width, width, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y = shuffle(torch.relu(self.norm(self.squeeze(x))), self.groups)
        return torch.relu(x + self.expand(self.depthwise(y)))


def dense() -> nn.Module:
    return network(lambda: Dense(64, 8), 2, 64)


@pytest.mark.parametrize("policy", ["l1,global{macs=50%,round_to=1},slim", "random,global{macs=50%,round_to=8},slim"])
def test_rows_of_an_ungrouped_layer_take_the_shuffle(policy: str, tmp_path: Path) -> None:
    slim = written(dense, policy, tmp_path)
    found = kinds(tmp_path / "slim.onnx")
    assert not found["Gather"] + found["Transpose"] + found["Split"]
    given, recipe = onnx.load(tmp_path / "given.onnx"), json.loads((tmp_path / "slim.json").read_text())
    want = onnx_reference.answer(onnx_reference.masked(given, recipe, feed(slim)), feed(slim))
    error, what = onnx_reference.difference(want, onnx_reference.answer(str(tmp_path / "slim.onnx"), feed(slim)))
    assert error < 1e-5, what
    again = secateur.apply(Recipe.load(tmp_path / "slim.json"), tmp_path / "given.onnx")
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "slim.onnx").read_bytes()


def test_halves_that_go_by_are_not_copied(tmp_path: Path) -> None:
    """What each layer of ShuffleNet v2 makes is split once, by who reads it, and joined where it is read."""
    written(second, "l1,global{macs=50%,round_to=1},slim", tmp_path)
    graph = onnx.load(tmp_path / "slim.onnx").graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    moves = [node for node in graph.node if node.op_type in ("Split", "Concat")]
    assert moves
    assert not any(made.get(name) == "Concat" for node in moves for name in node.input)
    assert max(len(node.output) for node in moves if node.op_type == "Split") <= 5  # the units that come after


def test_off_keeps_the_order_and_is_part_of_a_policy(tmp_path: Path) -> None:
    policy = secateur.Policy.parse("l1,global{macs=50%,round_to=1},slim,portable{on=false}")
    assert not policy.portable
    assert policy.spec == "l1,global{macs=50%,round_to=1},slim,portable{on=false}"
    policy.save(tmp_path / "policy.toml")
    assert secateur.Policy.load(tmp_path / "policy.toml") == policy
    slim = written(second, policy.spec, tmp_path)
    assert kinds(tmp_path / "slim.onnx")["Gather"]
    assert slim.recipe.rewrites == ()
    assert secateur.Policy().portable
    assert "portable" not in secateur.Policy().spec


def test_what_must_keep_its_order_keeps_it() -> None:
    order = np.array([5, 3, 0, 1, 4, 2])
    node = Node("gather", ("x", "order"), (Value("y", (1, 6, 2, 2)),), {"axis": 1})
    graph = reinfer(Graph("g", (Value("x", (1, 6, 2, 2)),), (node,), ("y",), {"order": order}))
    assert np.array_equal(freedom(graph, "y", 1), np.arange(6))
    assert Portable()(graph) is graph
