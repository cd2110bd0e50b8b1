"""What comes back is the same function of its parameters, under the same names, wherever pruning leaves it so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import secateur  # noqa: E402

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two convolutions, a matrix and a vector that ``forward`` may normalise."""

    def __init__(self, way: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.table, self.pair = nn.Linear(16, 5, bias=False), nn.Parameter(torch.tensor([0.7, 0.2]))
        self.queries, self.norm = nn.Parameter(torch.randn(4, 16)), nn.LayerNorm(16)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.way = way

    def forward(self, x: Any) -> Any:
        return self.way(self, F.relu(self.a(x)))


def _fused(m: Any, y: Any) -> Any:
    weights = F.relu(m.pair)
    weights = weights / (weights.sum() + 1e-4)
    return m.table((weights[0] * y + weights[1] * m.b(y)).mean((2, 3)))


def _cosine(m: Any, y: Any) -> Any:
    return F.linear(F.normalize(m.b(y).mean((2, 3)), dim=1), F.normalize(m.table.weight))


def _codes(m: Any, y: Any) -> Any:
    flat = m.b(y).permute(0, 2, 3, 1).reshape(-1, 16)
    codes = m.table.weight
    return flat.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * flat @ codes.t()


def _decoder(m: Any, y: Any) -> Any:
    tokens = m.b(y).flatten(2).transpose(1, 2)
    queries = m.queries.unsqueeze(0).repeat(y.shape[0], 1, 1)
    queries = m.norm(queries + m.attend(queries, queries, queries)[0])
    return m.table(m.attend(queries, tokens, tokens)[0])


def _standard(m: Any, y: Any) -> Any:
    w = m.b.weight
    w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
    return m.table(F.relu(F.conv2d(y, w, m.b.bias, padding=1)).mean((2, 3)))


WAYS = {"fused": _fused, "cosine": _cosine, "codes": _codes, "decoder": _decoder, "standard": _standard}


@pytest.mark.parametrize("way", WAYS)
def test_an_unpruned_network_is_the_same_function_of_the_same_parameters(way: str) -> None:
    torch.manual_seed(0)
    module = Net(WAYS[way]).eval()
    out = secateur.compile(module, "none", example_inputs=(X,)).module()
    with torch.no_grad():
        module(X).square().sum()
    used = _used(module)
    have = dict(out.named_parameters())
    assert {name: p.shape for name, p in have.items()} == {name: p.shape for name, p in used.items()}
    with torch.no_grad():
        for name, parameter in used.items():
            change = torch.randn_like(parameter) * 0.3 + 1
            parameter.mul_(change)
            have[name].mul_(change)
    torch.testing.assert_close(out(X), module(X), rtol=1e-4, atol=1e-5)
    more = torch.cat([X, X, X])
    torch.testing.assert_close(out(more), module(more), rtol=1e-4, atol=1e-5)


def _used(module: nn.Module) -> dict[str, Any]:
    """Parameters that a result depends on."""
    module(X).square().sum().backward()
    return {name: p for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("way", WAYS)
def test_pruning_names_what_it_had_to_replace(way: str) -> None:
    torch.manual_seed(0)
    module = Net(WAYS[way]).eval()
    slim = secateur.compile(module, "l1", example_inputs=(X,), macs=0.8)
    shapes = {name: p.shape for name, p in module.named_parameters()}
    new = [name for name, _ in slim.module().named_parameters() if name not in shapes]
    said = " ".join(r for r in slim.report.remarks if r.startswith("computed from parameters"))
    assert all(name in said for name in new)
    assert bool(said) == bool(new)
    replaced = {"cosine": "table.weight_folded", "standard": "b.weight_folded", "decoder": "attend.weight"}
    assert new == ([replaced[way]] if way in replaced else [])


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_weight_norm_stays_one(norm: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(norm(nn.Conv2d(3, 16, 3)), nn.ReLU(), norm(nn.Conv2d(16, 4, 1))).eval()
    whole = secateur.compile(module, "none", example_inputs=(X,))
    slim = secateur.compile(module, "l1", example_inputs=(X,), macs=0.6)
    for found in (whole, slim):
        assert {n for n, _ in found.module().named_parameters()} == {n for n, _ in module.named_parameters()}
    assert set(slim.recipe.weights) <= set(module.state_dict()) and not slim.report.remarks
    again = secateur.apply(whole.recipe, module, example_inputs=(X,))
    torch.testing.assert_close(again.module()(X), module(X))


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_a_spectral_norm_adds_nothing_to_train(norm: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(norm(nn.Conv2d(3, 16, 3)), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    out = secateur.compile(module, "none", example_inputs=(X,)).module()
    have, want = dict(out.named_parameters()), dict(module.named_parameters())
    assert have.keys() == want.keys()
    with torch.no_grad():
        for name, parameter in want.items():
            change = torch.randn_like(parameter) * 0.3 + 1
            parameter.mul_(change)
            have[name].mul_(change)
    module.train().eval()  # the old form keeps its quotient until it runs
    torch.testing.assert_close(out(X), module(X), rtol=1e-4, atol=1e-5)


def test_a_library_computes_what_depends_on_parameters_alone_beforehand() -> None:
    pytest.importorskip("tvm")
    torch.manual_seed(0)
    module = Net(_fused).eval()
    library = secateur.compile(module, "none", example_inputs=(X,)).build()
    torch.testing.assert_close(torch.as_tensor(library(X.numpy())), module(X), rtol=1e-4, atol=1e-5)
