"""Rewrites through the front door: in a policy, on the command line, in reports and recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.cli import app as cli
from secateur.ir import InputError
from secateur.ir.exporters.onnx.write import save
from secateur.passes.compensate import FoldConstants
from secateur.passes.recipe import Recipe
from secateur.passes.rewrite.fold_bn import FoldBN
from secateur.passes.rewrite.low_rank import LowRank
from secateur.passes.rewrite.separable import Separable
from secateur.policy import Policy, from_spec, from_toml
from support.nets import chain, residual

SPEC = "separable{layers=[c2]},low_rank{rank=2,layers=[fc]},l1,uniform{macs=20%,round_to=1},slim"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        try:
            cli.app([str(a) for a in args], prog_name="secateur")
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return run


def test_one_policy_rewrites_prunes_and_is_checked() -> None:
    done = secateur.compile(chain(), SPEC)
    assert done.report.verification is not None
    assert done.report.verification["passed"]
    assert done.report.verification["reference"] == "masked original after its rewrites"
    assert done.report.after is not None
    assert done.report.after["macs"] <= 0.2 * done.report.before["macs"]
    assert [(r["layer"], r["pass"].partition("{")[0], r["state"]) for r in done.report.rewrites] == [
        ("c2", "separable", "rewritten"), ("fc", "low_rank", "rewritten"),
    ]  # fmt: skip
    assert all(0 < r["error"] < 1 for r in done.report.rewrites)
    layers = {row["name"]: row for row in done.report.layers}
    assert "rewritten by separable{layers=[c2]}" in layers["c2"]["reason"]
    assert sum(row["macs"][1] for row in layers.values()) == done.report.after["macs"]
    assert done.recipe.rewrites == ("separable{layers=[c2]}", "low_rank{rank=2,layers=[fc]}", "slim")
    assert done.report.remarks[0].startswith("rewrites: 2 layers changed, 0 left alone; outputs differ by ")
    assert done.report.policy == SPEC
    assert "rewrite" in str(done.report)


def test_a_recipe_repeats_rewrites_before_its_cut(tmp_path: Path) -> None:
    done = secateur.compile(chain(), SPEC)
    done.recipe.save(tmp_path / "slim.json")
    assert secateur.verify(chain(), done.graph, tmp_path / "slim.json").passed
    again = secateur.apply(Recipe.load(tmp_path / "slim.json"), chain())
    for name, weight in done.graph.weights.items():
        np.testing.assert_allclose(again.graph.weights[name], weight, atol=1e-6)
    data = [np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)]
    mended = secateur.compile(chain(), f"{SPEC},refit", calibration=data)
    assert mended.recipe.rewrites[-2:] == ("slim", "refit")
    assert secateur.verify(chain(), mended.graph, mended.recipe).passed


def test_drop_layer_repeats_without_the_data_that_it_chose_by() -> None:
    data = [np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)]
    done = secateur.rewrite(residual(), "drop_layer", calibration=data)
    assert done.recipe.rewrites == ("drop_layer{layers=[b]}", "slim")
    assert "calibration data" in done.report.rewrites[0]["measure"]
    assert not any("not needed" in remark for remark in done.report.remarks)
    layers = {row["name"]: row for row in done.report.layers}
    assert layers["b"]["reason"] == "removed by drop_layer{layers=[b]}"
    assert layers["b"]["macs"][1] == 0
    assert secateur.verify(residual(), done.graph, done.recipe).passed


def test_a_budget_counts_from_the_original_and_a_rewrite_may_meet_it() -> None:
    done = secateur.compile(chain(), "separable,l1,uniform{macs=50%},slim")
    assert done.report.after is not None
    assert done.report.after["macs"] < 0.5 * done.report.before["macs"]
    assert any("which meets the budget: nothing was pruned" in r for r in done.report.remarks)


def test_policy_forms() -> None:
    policy = from_spec(SPEC)
    assert policy.spec == SPEC
    assert policy.rewrites == (Separable(layers=("c2",)), LowRank(rank=2, layers=("fc",)))
    assert from_toml(policy.to_toml()) == policy
    alone = from_spec("separable{rank=2},fold_bn")
    assert alone.criterion is None
    assert alone.spec == "separable{rank=2},fold_bn"
    assert from_toml(alone.to_toml()) == alone
    assert from_spec("fold_constants,l1,slim,fold_constants").compensate == (FoldConstants(),)
    assert from_spec("fold_constants,l1,slim,fold_constants").rewrites == (FoldConstants(),)
    assert from_toml('[rewrite]\npasses = "fold_bn"\n').rewrites == (FoldBN(),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("l1,slim,separable", "'separable' stands after other passes; rewrites come first"),
        ("low_rank,refit,l1,low_rank", "'low_rank' stands after other passes"),
        ("refit,low_rank,l1", "'refit' comes before any rewrite, where it has nothing to repair"),
        ("refit,l1", "'refit' comes before any rewrite"),
        ("low_rank,sparsify,l1", "'sparsify' stands before the criterion"),
        ("low_rank,couple,refit,l1", "'refit' stands before the criterion"),
        ("separable,global{macs=50%}", "names no criterion"),
        ("separable{ranks=1},l1", "no option 'ranks' (did you mean rank"),
        ("seperable,l1", "did you mean separable"),
    ],
)
def test_mistakes_in_policies(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        Policy.parse(text)
    assert words in str(caught.value)
    with pytest.raises(InputError, match="unknown key of \\[rewrite\\] 'pass'"):
        from_toml('[rewrite]\npass = "fold_bn"\n')


def test_command_rewrite(tmp_path: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    save(chain(), source)
    code, stdout, err = call(
        "rewrite", source, out, "--passes", "separable{layers=[c2]},fold_bn", "--json", "-",
        "--recipe", tmp_path / "r.json", "--report", tmp_path / "page.html",
    )  # fmt: skip
    assert code == 0, err
    body = json.loads(stdout)
    assert [(r["layer"], r["state"]) for r in body["rewrites"]] == [("c2", "rewritten"), ("c1", "rewritten")]
    assert body["after"]["macs"] < body["before"]["macs"]
    assert "weights, relative Frobenius norm" in (tmp_path / "page.html").read_text()
    assert "outputs differ by" in err
    assert "nothing was to be pruned" not in body["layers"][1]["reason"]
    made = secateur.load(out)
    assert [n.op for n in made.nodes].count("batch_norm") == 0
    code, _, err = call("verify", source, out, "--recipe", tmp_path / "r.json")
    assert code == 0, err
    again = tmp_path / "again.onnx"
    assert call("apply", tmp_path / "r.json", source, again)[0] == 0
    assert again.exists()


@pytest.mark.parametrize(
    ("passes", "words"),
    [
        ("l1", "'l1' is not a rewrite"),
        ("separable{layers=[c9]}", "'c9' matches no conv layer of 'chain' (did you mean"),
        ("grouped{groups=3,layers=[c2]}", "layer 'c2' cannot be rewritten: groups=3 does not divide its 16 inputs"),
        ("low_rank{rank=999}", "give 1 to"),
        ("nonsense", "there is no pass 'nonsense'"),
        ("separable{", "not closed"),
        ("", "no pass is named; `secateur passes`"),
    ],
)
def test_command_rewrite_names_mistakes(
    passes: str, words: str, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    save(chain(), source)
    code, _, err = call("rewrite", source, out, "--passes", passes)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert not out.exists()


def test_torch_in_trainable_module_out() -> None:
    """A rewritten torch network trains, and squeeze-excite starts from what the network computed."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 12, 12)
    done = secateur.rewrite(model, "squeeze_excite{layers=[3],reduction=2,limit=100%}", example_inputs=(x,))
    module = done.module()
    assert torch.equal(module(x), model(x))
    names = dict(module.named_parameters())
    assert {"3.weight", "3.squeeze.weight", "3.excite.bias"} <= set(names)
    module.train()
    loss = nn.functional.cross_entropy(module(x), torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(names["3.excite.weight"].grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_each_weight_is_factored_once_and_only_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    done = secateur.compile(residual(), "low_rank{ratio=60%},l1,global{macs=90%},slim")
    rows = done.report.rewrites
    assert {row.reason is None for row in rows} == {True, False}
    factored: list[Any] = []
    svd = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda a, **options: factored.append(a.shape) or svd(a, **options))
    again = secateur.apply(done.recipe, residual())
    assert len(factored) == sum(row.reason is None for row in rows)
    for name, weight in done.graph.weights.items():
        assert np.array_equal(again.graph.weights[name], weight)
