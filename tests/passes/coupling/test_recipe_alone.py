"""From a recipe alone: zeros in the input columns of the module's own weights, normalised ones too."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

import secateur

NORMS = [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm]


@pytest.mark.parametrize("norm", NORMS, ids=["hook", "parametrisation"])
def test_the_original_module_masked_by_the_recipe_is_the_slim_one(norm: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(norm(nn.Conv1d(20, 32, 3)), nn.ReLU(), norm(nn.Conv1d(32, 32, 3)), nn.ReLU(),
                           norm(nn.Conv1d(32, 2, 3))).eval()  # fmt: skip
    x = torch.randn(1, 20, 30)
    slim = secateur.compile(module, macs=0.5, example_inputs=(x,))
    recipe, state = json.loads(slim.recipe.to_json()), module.state_dict()
    assert set(recipe["weights"]) <= set(state)
    assert {name for name, _ in slim.module().named_parameters()} == set(state)
    for name, entry in recipe["weights"].items():
        if "1" in entry["kept"]:
            state[name][:, sorted(set(range(state[name].shape[1])) - set(entry["kept"]["1"]))] = 0
    module.load_state_dict(state)
    with torch.no_grad():
        want = module(x)
        assert (want - slim.module()(x)).abs().max() < 1e-5 * want.abs().max()


@pytest.mark.parametrize("layer", [nn.ConvTranspose1d(16, 16, 4), nn.Conv1d(16, 16, 3, groups=4), nn.Linear(30, 30)])
def test_norms_over_what_another_layer_reads_are_taken_as_they_are(layer: nn.Module) -> None:
    """Filters of which other channels' lengths would hear: cut as the product, whose remark says so."""
    torch.manual_seed(0)
    normed = nn.utils.parametrizations.weight_norm(layer, dim=1 if isinstance(layer, nn.Linear) else 0)
    module = nn.Sequential(nn.Conv1d(3, 16, 3, padding=1), nn.ReLU(), normed, nn.ReLU(), nn.Conv1d(16, 2, 1)).eval()
    slim = secateur.compile(module, macs=0.7, example_inputs=(torch.randn(1, 3, 30),))
    assert slim.report.verification is not None and slim.report.verification.law == "exact"
    assert any("kept as what they are now: 2.weight" in remark for remark in slim.report.remarks)
