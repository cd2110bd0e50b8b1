"""State between calls is refused by name, and a module is after its capture what it was before."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from secateur.ir import Unsupported

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from secateur.ir.exporters.torch.module import to_module  # noqa: E402
from secateur.ir.frontends.torch.trace import trace  # noqa: E402

X = torch.randn(1, 8, 6, generator=torch.Generator().manual_seed(0))


class Stream(nn.Module):
    """A causal convolution that keeps the end of its input for the next call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 4, 3)
        self.register_buffer("past", torch.zeros(1, 8, 2))
        self.register_buffer("count", torch.zeros(()))
        self.held = torch.zeros(1, 8, 2)

    def copies(self, x: Any) -> Any:
        x = torch.cat([self.past, x], 2)
        self.past.copy_(x[:, :, -2:])
        return self.conv(x)

    def views(self, x: Any) -> Any:
        self.past[:, :, :1] = x[:, :, -1:]
        return self.conv(torch.cat([self.past, x], 2))

    def assigns(self, x: Any) -> Any:
        x = torch.cat([self.past, x], 2)
        self.past = x[:, :, -2:]
        return self.conv(x)

    def adds(self, x: Any) -> Any:
        self.past += x.mean()
        return self.conv(x) * self.past.sum()

    def holds(self, x: Any) -> Any:
        x = torch.cat([self.held, x], 2)
        self.held = x[:, :, -2:]
        return self.conv(x)

    def counts(self, x: Any) -> Any:
        self.count += 1
        return self.conv(x)

    def replaces(self, x: Any) -> Any:
        self.past.copy_(x[:, :, -2:])
        return self.conv(torch.cat([self.past, x], 2))


def _network(way: str) -> nn.Module:
    return type(way.title(), (Stream,), {"forward": getattr(Stream, way)})().eval()


@pytest.mark.parametrize("way", ["copies", "views", "assigns", "adds", "holds"])
def test_state_that_the_next_call_would_read_is_refused_by_name(way: str) -> None:
    module = _network(way)
    with pytest.raises(Unsupported, match=rf"'{'held' if way == 'holds' else 'past'}' is written to .* `y, state"):
        trace(module, (X,))
    assert not module.past.any()
    assert not module.held.any()


def test_state_of_an_inner_module_is_refused_too() -> None:
    with pytest.raises(Unsupported, match=r"'1\.held' is written to"):
        trace(nn.Sequential(nn.Conv1d(8, 8, 1), _network("holds")), (X,))


@pytest.mark.parametrize("way", ["counts", "replaces"])
def test_what_no_result_depends_on_is_no_state(way: str) -> None:
    module = _network(way)
    out = to_module(trace(module, (X,)))
    for x in (X, X + 1):
        torch.testing.assert_close(out(x), module(x))


def test_layers_that_count_in_train_mode_alone_keep_no_state() -> None:
    norm = nn.utils.parametrizations.spectral_norm(nn.Conv1d(8, 4, 3))
    module = nn.Sequential(nn.BatchNorm1d(8), norm, nn.InstanceNorm1d(4, track_running_stats=True)).train()
    before = copy.deepcopy(module.state_dict())
    out = to_module(trace(module, (X,)))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(child.training for child in module.modules())
    torch.testing.assert_close(out(X), module.eval()(X))


class Detector(nn.Module):
    """Keeps the grid of the last size that it saw, as detectors do, and whatever else a module may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.shape: Any = None
        self.grid = torch.zeros(1)
        self.cache: dict[str, Any] = {}
        self.seen: list[Any] = []
        self.register_buffer("noise", torch.ones(1), persistent=False)

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        if self.shape != x.shape:
            height, width = x.shape[-2:]
            rows, columns = torch.arange(height).type_as(x), torch.arange(width).type_as(x)
            self.grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
            self.shape, self.cache["grid"] = x.shape, self.grid
            self.seen.append(self.grid)
            self.noise.copy_(torch.ones(1) + random.random() * 0)
        return y[:, :2] + self.grid * self.noise, y


def test_a_detector_holds_nothing_of_its_capture() -> None:
    module = nn.Sequential(Detector()).train()
    module[0].conv.weight.grad = torch.ones_like(module[0].conv.weight)
    module[0].conv.bias.requires_grad_(False)
    hook = module[0].conv.register_forward_hook(lambda *_: None)
    inner = module[0]
    before = [dict(child.__dict__) for child in module.modules()]
    grad, state, python = inner.conv.weight.grad, torch.get_rng_state(), random.getstate()
    x = torch.randn(1, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    out = to_module(trace(module, (x,)))
    for child, attributes in zip(module.modules(), before, strict=True):
        assert child.__dict__.keys() == attributes.keys()
        assert all(child.__dict__[key] is value for key, value in attributes.items())
    assert (inner.cache, inner.seen, inner.shape) == ({}, [], None)
    assert inner.conv.weight.grad is grad
    assert not inner.conv.bias.requires_grad
    assert len(inner.conv._forward_hooks) == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    hook.remove()
    copy.deepcopy(module)
    for have, want in zip(out(x), module.eval()(x), strict=True):
        torch.testing.assert_close(have, want)


def test_a_fallback_that_runs_the_module_leaves_it_alone_too() -> None:
    class Branches(Detector):
        def forward(self, x: Any) -> Any:
            if float(self.noise) > 0:  # export cannot follow this
                self.noise.add_(1 - self.noise.sum())
                self.cache["last"] = x
            return self.conv(x)

    module = Branches().eval()
    x = torch.randn(1, 3, 6, 5)
    out = to_module(trace(module, (x,)))
    assert (module.cache, float(module.noise)) == ({}, 1.0)
    torch.testing.assert_close(out(x), module(x))


class Anchors(nn.Module):
    """A head that makes its grid when the shape of its input changes, as those of detectors do."""

    shape = None

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 4, 3)

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        if self.shape != y.shape:
            self.shape = y.shape
            self.grid = torch.arange(y.shape[-1], dtype=y.dtype) + 0.5
            self.scale = torch.full_like(self.grid, 8.0)
        return (y.sigmoid() + self.grid) * self.scale


def test_what_was_cached_by_a_run_frees_the_batch_and_stays_as_it_was() -> None:
    model = Anchors().eval()
    two = torch.cat([X, -X])
    want = model(two)
    model(X)
    shape, grid = model.shape, model.grid
    graph = trace(model, (X,))
    assert model.shape is shape and model.grid is grid
    assert repr(graph.inputs[0].shape[0]) == "N:1"
    torch.testing.assert_close(to_module(graph)(two), want)
    copy.deepcopy(model)
