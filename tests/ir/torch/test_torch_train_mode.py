"""What comes back trains as the original does, and pickles."""

from __future__ import annotations

import io
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import secateur  # noqa: E402
from secateur.ir.exporters.torch.module import to_module  # noqa: E402
from secateur.ir.frontends.torch.trace import trace  # noqa: E402

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Rests(nn.Module):
    """One of each layer that eval mode makes another operator than train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.whole, self.part = nn.Dropout2d(0.5), nn.Dropout(0.25)
        self.alpha, self.maps = nn.AlphaDropout(0.1), nn.FeatureAlphaDropout(0.1)
        self.norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True, momentum=0.3)

    def forward(self, x: Any) -> Any:
        y = F.relu(self.norm(self.b(self.part(self.whole(self.a(x))))))
        return self.c(self.maps(self.alpha(y)) * torch.sigmoid(y.mean(1, keepdim=True)))


def test_layers_that_rest_are_the_original_s_in_train_mode() -> None:
    torch.manual_seed(0)
    module = Rests().eval()
    out = secateur.compile(module, "l1", example_inputs=(X,), macs=0.6).module()
    kinds = {name: type(layer) for name, layer in module.named_children() if not isinstance(layer, nn.Conv2d)}
    assert {name: type(out.get_submodule(name)) for name in kinds} == kinds
    assert (out.norm.momentum, out.norm.eps) == (module.norm.momentum, module.norm.eps)
    assert {n for n, _ in out.named_parameters()} == {n for n, _ in module.named_parameters()}


def test_train_mode_computes_what_the_original_computes_in_train_mode() -> None:
    module = Rests().eval()
    out = to_module(trace(module, (X,)))
    results = []
    for each in (module, out):
        torch.manual_seed(1)
        each.train()
        y = each(X)
        y.square().sum().backward()
        results.append((y, each.a.weight.grad, each.norm.running_var))
    for have, want in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(have, want)


def test_dropout_between_recurrent_layers_works_in_train_mode_alone() -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(8, 6, num_layers=2, dropout=0.5)

        def forward(self, x: Any) -> Any:
            return self.rnn(x)[0]

    module = Read().eval()
    out = to_module(trace(module, (X[:, 0],)))
    torch.testing.assert_close(out(X[:, 0]), module(X[:, 0]))
    assert not torch.equal(out.train()(X[:, 0]), out(X[:, 0]))


def test_dropout_that_never_rests_is_no_layer_that_eval_switches_off() -> None:
    class Always(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Any) -> Any:
            return F.dropout(self.conv(x), 0.5, training=True)

    module = Always().eval()
    out = to_module(trace(module, (X,)))
    torch.manual_seed(0)
    want = module(X)
    torch.manual_seed(0)
    assert torch.equal(out(X), want)
    assert not torch.equal(out(X), want)


def test_a_module_with_operators_of_our_own_pickles() -> None:
    head = nn.Sequential(nn.ReflectionPad2d(2), nn.MaxPool2d(3, 2, ceil_mode=True))
    out = to_module(trace(head, (X,)))
    file = io.BytesIO()
    torch.save(out, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    torch.testing.assert_close(again(X), head(X))


def test_a_module_that_reads_its_training_flag_is_named() -> None:
    class Depth(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * (torch.rand(()) if self.training else 1)

    module = nn.Sequential(nn.Conv2d(3, 4, 1), Depth(), nn.Dropout(0.1), nn.BatchNorm2d(4), Depth())
    (remark,) = secateur.compile(module, "none", example_inputs=(X,)).report.remarks
    assert "Depth ('1' and 1 more)" in remark
    assert not secateur.compile(module[:1], "none", example_inputs=(X,)).report.remarks
