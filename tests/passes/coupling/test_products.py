"""Weights that products read, and weights of a convolution that are computed for every sample, lose channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur


class Experts(nn.Module):
    """Every expert's layers as one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(3, 12, 16)), nn.Parameter(torch.randn(3, 16, 12))
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(torch.einsum("nd,edh->neh", x, self.a))
        return self.last(torch.einsum("neh,ehd->ned", hidden, self.b).sum(1))


class OwnWeights(nn.Module):
    """A convolution with weights that each sample mixes for itself, as groups over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.route, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 2), nn.Conv2d(8, 2, 1)
        self.weight = nn.Parameter(torch.randn(2, 8 * 8 * 9))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        n, c, h, w = y.shape
        weight = (self.route(y.mean((2, 3))).sigmoid() @ self.weight).view(n * 8, c, 3, 3)
        y = F.conv2d(y.reshape(1, n * c, h, w), weight, padding=1, groups=n).view(n, 8, h, w)
        return self.last(y)


def test_a_product_with_a_constant_makes_channels() -> None:
    torch.manual_seed(0)
    slim = secateur.compile(Experts().eval(), "l1", example_inputs=(torch.randn(2, 12),), macs=0.5)
    assert tuple(dict(slim.module().named_parameters())["a"].shape) < (3, 12, 16)


def test_a_convolution_with_weights_of_each_sample_loses_channels_and_keeps_its_batch() -> None:
    torch.manual_seed(0)
    slim = secateur.compile(OwnWeights().eval(), "l1", example_inputs=(torch.randn(2, 3, 8, 8),), macs=0.5)
    assert slim.report.verification is not None and slim.report.verification.passed
    assert slim.module()(torch.randn(5, 3, 9, 12)).shape == (5, 2, 7, 10)


def test_grouped_transposed_convolutions_and_weights_with_an_update_are_cut() -> None:
    class Updated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.last = nn.Linear(16, 16), nn.Linear(16, 4)
            self.a, self.b = nn.Parameter(torch.randn(2, 16)), nn.Parameter(torch.randn(16, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.relu(F.linear(x, self.base.weight + 0.5 * (self.b @ self.a), self.base.bias)))

    grouped = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ConvTranspose2d(16, 24, 4, 2, 1, groups=4), nn.Conv2d(24, 4, 1))
    single = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ConvTranspose2d(24, 8, 4, 2, 1, groups=8), nn.Conv2d(8, 4, 1))
    pictures = torch.randn(2, 3, 8, 8)
    for module, x in ((Updated(), torch.randn(2, 16)), (grouped, pictures), (single, pictures)):
        slim = secateur.compile(module.eval(), "l1", example_inputs=(x,), macs=0.5)
        assert not any(layer.state == "frozen" for layer in slim.report.layers[:-1])


def test_positions_that_meet_channels_are_cut_with_them_at_any_length() -> None:
    class Rotated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            angle = torch.arange(x.shape[1])[:, None] / 10.0 ** torch.arange(8)
            even, odd = y[..., 0::2], y[..., 1::2]
            turned = [even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()]
            return self.last(torch.stack(turned, -1).flatten(-2))

    slim = secateur.compile(Rotated().eval(), "l1", example_inputs=(torch.randn(2, 6, 8),), macs=0.5)
    assert slim.module()(torch.randn(3, 11, 8)).shape == (3, 11, 4)


def test_a_bias_of_which_layers_read_parts_is_cut() -> None:
    attention = nn.MultiheadAttention(16, 2, batch_first=True, kdim=8, vdim=8)
    module = nn.ModuleDict({"a": attention, "b": nn.Linear(16, 8)})

    class Over(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = module

        def forward(self, x: Tensor) -> Tensor:
            memory = self.parts["b"](x)
            return self.parts["a"](x, memory, memory)[0]

    slim = secateur.compile(Over().eval(), "l1", example_inputs=(torch.randn(2, 5, 16),), macs=0.6)
    assert not any(layer.state == "frozen" for layer in slim.report.layers[:-1])


class OwnKernels(nn.Module):
    """A kernel for every place, shared by groups of channels: its taps lie along another axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.span, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 9 * 2, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        kernel = self.span(x).view(n, 2, 1, 9, h, w)
        windows = F.unfold(F.relu(self.first(x)), 3, padding=1).view(n, 2, 8, 9, h, w)
        return self.last((kernel * windows).sum(3).view(n, 16, h, w))


class Crossed(nn.Module):
    """Arithmetic on two matrices that have each other's channels along another axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(6, 12), nn.Linear(12, 8), nn.Linear(12, 3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.last(F.relu(self.a(x)) * self.b(z).transpose(1, 2))


class Correlated(nn.Module):
    """A picture seen through another's features, channel by channel: kernels of each sample, in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        y, kernel = F.relu(self.body(x)), self.body(z)
        n, c, h, w = y.shape
        found = F.conv2d(y.reshape(1, n * c, h, w), kernel.reshape(n * c, 1, 2, 2), groups=n * c)
        return self.last(found.view(n, c, h - 1, w - 1))


def test_correlation_channel_by_channel_is_cut_and_keeps_a_free_batch() -> None:
    torch.manual_seed(0)
    module, inputs = Correlated(), (torch.randn(2, 3, 6, 6), torch.randn(2, 3, 2, 2))
    slim = secateur.compile(module, "l1", example_inputs=inputs, macs=0.6)
    assert {layer.reason for layer in slim.report.layers if layer.state == "frozen"} <= {"graph output"}
    assert slim.module()(torch.randn(5, 3, 6, 6), torch.randn(5, 3, 2, 2)).shape == (5, 2, 5, 5)


@pytest.mark.parametrize(
    ("module", "inputs"),
    [(OwnKernels, (torch.randn(1, 3, 6, 6),)), (Crossed, (torch.randn(2, 8, 6), torch.randn(2, 12, 12)))],
)
def test_arithmetic_across_axes_freezes_nothing(module: type[nn.Module], inputs: tuple[Tensor, ...]) -> None:
    torch.manual_seed(0)
    slim = secateur.compile(module(), "l1", example_inputs=inputs, macs=0.6)
    assert {layer.reason for layer in slim.report.layers if layer.state == "frozen"} <= {"graph output"}
    assert slim.report.verification and slim.report.verification.law == "exact"


class Talking(nn.Module):
    """Attention whose scores are mixed between the heads: one operand loses heads, the other features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.parts, self.last = nn.Linear(6, 16), nn.Linear(16, 48), nn.Linear(16, 3)
        self.talk = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.view(*x.shape[:2], 4, 4).transpose(1, 2) for y in self.parts(self.first(x)).chunk(3, -1))
        y = self.talk(q @ k.transpose(-1, -2)).softmax(-1) @ v
        out: Tensor = self.last(y.transpose(1, 2).flatten(2))
        return out


def test_an_operand_is_widened_along_its_own_channels_alone() -> None:
    torch.manual_seed(0)
    slim = secateur.compile(Talking().eval(), "l1", example_inputs=(torch.randn(2, 5, 6),), macs=0.5)
    assert slim.report.verification is not None and slim.report.verification.law == "exact"


class Kronecker(nn.Module):
    """A layer whose matrix is a product of two small ones, multiplied by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)
        self.a, self.b = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(torch.relu(self.first(x)) @ torch.kron(self.a, self.b)))
        return out


def test_a_matrix_that_cannot_be_followed_is_cut_as_what_it_is_now() -> None:
    torch.manual_seed(0)
    slim = secateur.compile(Kronecker().eval(), "l1", example_inputs=(torch.randn(2, 6),), macs=0.5)
    assert {g.frozen for g in slim.report.groups} == {None, "graph output"}
    assert any(remark.startswith("computed from parameters") for remark in slim.report.remarks)
