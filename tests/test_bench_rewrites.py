"""The benchmarks on rewrites: their networks are what they say, and the README's part is made from their rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import common
import from_trained
import readme_rewrites
import rewrite_nets
import rewrites
import shuffles
from nets import draw
from secateur.passes import REWRITES, parse_spec

SHUFFLED = """graph two
  in  %x : f32[1, 4, 4, 4]
  %c = conv(%x, @c.w) dilation=[1,1] groups=2 pad=[0,0,0,0] stride=[1,1] : f32[1, 4, 4, 4]
  %s = gather(%c, @s.index) axis=1 : f32[1, 4, 4, 4]
  %y = conv(%s, @y.w) dilation=[1,1] groups=2 pad=[0,0,0,0] stride=[1,1] : f32[1, 4, 4, 4]
  out %y
weights
  @c.w f32[4, 2, 1, 1]
  @s.index i64[4] = [0, 2, 1, 3]
  @y.w f32[4, 2, 1, 1]
"""


def test_the_plain_network_costs_what_its_formula_says() -> None:
    for width in (4, 16):
        assert rewrite_nets.macs(rewrite_nets.plain(width)) == rewrite_nets._plain_macs(width)
    assert rewrite_nets.plain_width(rewrite_nets._plain_macs(9)) == 9


@pytest.mark.parametrize("name", rewrites.SPECS)
def test_each_rewrite_changes_layers_and_says_why_others_stay(name: str) -> None:
    graph, about = rewrites.rewritten(rewrites.SPECS[name])
    assert about["changed"] > 0
    assert all(about["left"].values())
    module = rewrites.draw(rewrites.to_module(graph), 1)
    assert torch.isfinite(module(torch.zeros(2, 1, 28, 28))).all()
    gates = [p for n, p in module.named_parameters() if "excite.weight" in n]
    assert all(not gate.any() for gate in gates)
    assert bool(gates) == (name == "squeeze_excite")


def test_levels_are_specs() -> None:
    for network in from_trained.NETWORKS:
        for rewrite, _, spec in from_trained.cells(network):
            assert parse_spec(spec, REWRITES)[0].name == rewrite


def test_shuffles_are_counted_and_left_out() -> None:
    graph = draw(SHUFFLED).rewrite(weights={**draw(SHUFFLED).weights, "s.index": torch.tensor([0, 2, 1, 3]).numpy()})
    assert shuffles.shuffles(graph) == 1
    assert shuffles.shuffles(shuffles.without(graph)) == 0
    assert len(shuffles.without(graph).nodes) == 2


def test_the_readmes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert readme_rewrites.block() == ""
    law = {"passed": True, "max_rel_err": 2e-7}
    rows = [
        {
            "network": name, "seed": seed, "examples": 15000, "epochs": 2.0, "macs": 10**6, "params": 5000,
            "accuracy": 0.8 + 0.02 * seed, "pruned": 0.7, "law": law,
        }
        for name in ("plain", "separable", "plain at separable", "shufflenet g=1")
        for seed in (0, 1)
    ]  # fmt: skip
    times = [{"latency": "separable", "runtime": r, "ms": 0.05} for r in ("onnxruntime", "secateur")]
    common.append(tmp_path / "rewrites.jsonl", [*rows, *times])
    text = readme_rewrites.block()
    assert (
        "| separable | 1.00 M | 5.0 k | 81.00 ± 1.00 | 81.00 ± 1.00 | 70.00 ± 0.00 | 70.00 ± 0.00 | 50 / 50 |  | 2 |"
        in text
    )
    assert "The law held for all 8 pruned networks, largest error 2e-07" in text
    assert "| 1 | 1.00 M | 5.0 k | 81.00 ± 1.00 |" in text
