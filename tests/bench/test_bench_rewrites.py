"""The benchmarks on rewrites: their networks are what they say, and the README's part is made from their rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.accuracy import from_trained, rewrites
from bench.data import fashion, trained_subjects
from bench.docs import readme_rewrites
from bench.lib import common
from bench.nets import rewrite_nets
from bench.reach import shuffles
from secateur.passes import REWRITES, parse_spec
from support.nets import draw

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

ONE = """graph one
  in  %x : f32[1, 4, 5, 5]
  %y = conv(%x, @y.w) dilation=[1,1] groups=1 pad=[0,0,0,0] stride=[1,1] : f32[1, 4, 5, 5]
  out %y
weights
  @y.w f32[4, 4, 1, 1]
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


def subject(tune: float, choose: float, judge: float) -> trained_subjects.Subject:
    """One 1x1 layer, and multiples of its own answers to tune on, to choose by and to judge by."""
    torch.manual_seed(0)
    graph = draw(ONE)
    module, pictures = from_trained.to_module(graph), torch.randn(3, 8, 4, 5, 5)
    with torch.no_grad():
        y = [module(x) * k for x, k in zip(pictures, (tune, choose, judge), strict=True)]
    train, third, test = (fashion.Data(x, wanted) for x, wanted in zip(pictures, y, strict=True))
    return trained_subjects.Subject(graph, train, third, test, False)


def test_rates_are_chosen_by_pictures_that_neither_tune_nor_judge() -> None:
    """Tuning leads astray, so the rate that changes nothing serves the third set best, whatever the others hold."""
    found = [from_trained.tuned(s, s.graph, 0, (0.3, 1e-9)) for s in (subject(-1, 1, 1), subject(-1, 1, -1))]
    assert [best.rate for best in found] == [1e-9, 1e-9]
    assert found[0].errors == found[1].errors
    assert found[0].errors["1e-09"] < 1e-4 < found[0].errors["0.3"]
    other = subject(-1, -1, 1)
    assert from_trained.tuned(other, other.graph, 0, (0.3, 1e-9)).rate == 0.3


def test_a_row_says_what_was_chosen_and_judges_by_the_last_set() -> None:
    row = from_trained.measure(subject(1, 1, -1), "low_rank{rank=1}", 0, (1e-9,))
    assert (row["layers"], row["left"], row["rate"]) == (1, 0, 1e-9)
    assert row["original"] == pytest.approx(2, rel=1e-3)  # y next to -y
    assert row["fitted"] < 1 < row["after"]
    assert list(row["chosen_by"]) == ["1e-09"]


def test_a_constant_answer_is_the_mean_of_the_targets() -> None:
    y = torch.tensor([[3.0, 0.0], [5.0, 0.0]])
    sets = fashion.Data(y, y), fashion.Data(y, y), fashion.Data(y, 2 * y)
    found = trained_subjects.constant(trained_subjects.Subject(draw(ONE), *sets, False))
    assert found == pytest.approx((2**0.5 / 34**0.5, (2**2 + 6**2) ** 0.5 / 136**0.5))


def test_crops_come_from_the_pictures_they_are_given() -> None:
    """Constant pictures have constant crops: each picture's value, and no other one's."""
    pictures = torch.arange(3.0)[:, None, None, None].expand(3, 3, 224, 224)
    made = trained_subjects.crops(pictures, 0)
    assert made.shape == (trained_subjects.CROPS, 3, 224, 224)
    assert {round(float(v), 4) for v in made.amax((1, 2, 3))} == {round(float(v), 4) for v in made.amin((1, 2, 3))}
    assert [round(float(v), 4) for v in made[:4, 0, 0, 0]] == [0, 1, 2, 0]
    assert torch.equal(made, trained_subjects.crops(pictures, 0))


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
