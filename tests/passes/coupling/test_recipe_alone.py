"""From a recipe alone: where a weight was computed in the original, the input of its layer is named to be masked."""

from __future__ import annotations

import json

import torch
from torch import nn

import secateur


def test_the_original_module_masked_by_the_recipe_is_the_slim_one() -> None:
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.weight_norm
    module = nn.Sequential(norm(nn.Conv1d(20, 32, 3)), nn.ReLU(), norm(nn.Conv1d(32, 32, 3)), nn.ReLU(),
                           norm(nn.Conv1d(32, 2, 3))).eval()  # fmt: skip
    x = torch.randn(1, 20, 30)
    slim = secateur.compile(module, macs=0.5, example_inputs=(x,))
    recipe = json.loads(slim.recipe.to_json())
    names = set(module.state_dict())
    assert not names & {name for name in recipe["weights"] if name.endswith("weight")}
    assert len(recipe["mixing"]) == 2
    masks = [m["kept"] for m in recipe["mixing"]]
    with torch.no_grad():
        y = module[0](x)
        for layer, mask in zip((module[2], module[4]), masks, strict=True):
            keep = torch.zeros(y.shape[1])
            keep[mask] = 1
            y = layer(torch.relu(y) * keep[:, None])
        assert (y - slim.module()(x)).abs().max() < 1e-5 * y.abs().max()
