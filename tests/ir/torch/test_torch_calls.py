"""Calls of torch that the IR has no name for: they follow the sizes of their inputs, and most have a form in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.exporters.torch.module import to_module
from secateur.ir.frontends.torch.trace import trace
from secateur.ir.numeric import random_inputs


class Recurrent(nn.Module):
    def __init__(self, **options: bool | int) -> None:
        super().__init__()
        self.layer = nn.LSTM(5, 6, **options)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.layer(x)
        return y, h, c


class Unpooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y, index = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(y, index, [2, 2])


class Bags(nn.Module):
    def __init__(self, mode: str, begins: bool = False) -> None:
        super().__init__()
        self.table, self.begins = nn.EmbeddingBag(9, 4, mode=mode, include_last_offset=begins), begins

    def forward(self, index: Tensor, *more: Tensor) -> Tensor:
        return self.table(index, *more[:1], per_sample_weights=more[1] if len(more) > 1 else None)


class Places(nn.Module):
    """Calls that write to places, or go along an axis, each with an ONNX operator of its own."""

    def forward(self, x: Tensor, i: Tensor) -> list[Tensor]:
        zeros, flat = torch.zeros(3, 5), x[0]
        return [
            zeros.index_add(0, i, flat), zeros.scatter_add(0, i[:, None].expand(-1, 5), flat),
            zeros.scatter_reduce(0, i[:, None].expand(-1, 5), flat, "amax", include_self=False),
            zeros.scatter_reduce(0, i[:, None].expand(-1, 5), flat, "prod", include_self=False),
            flat.scatter(1, i[:, None] % 2, 7.0), flat.index_put((i, i), flat[:, 0]),
            flat.index_put((i % 2,), flat, accumulate=True), flat.masked_fill(flat > 0, 2.0).cumprod(0),
            flat.cumprod(1), flat.median(0)[0], flat.median(1, keepdim=True)[0], flat.kthvalue(2, 1)[0],
        ]  # fmt: skip


class Fold(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.fold(x, (4, 4), 2, stride=2)


class Parts(nn.Module):
    """Functions and products that are compositions of others."""

    def forward(self, x: Tensor) -> list[Tensor]:
        small, row = torch.tanh(x) * 0.9, x[0, 0]
        return [
            torch.log1p(small.abs()), torch.expm1(x), torch.log2(small.abs() + 1), torch.log10(small.abs() + 1),
            torch.exp2(x), torch.erfc(x), torch.sinh(x), torch.cosh(x), torch.tan(small), torch.trunc(3 * x),
            torch.frac(3 * x), torch.asinh(x), torch.atanh(small), F.hardshrink(x), F.softshrink(x),
            torch.logaddexp(x, small), torch.logit(small.abs(), 1e-3), torch.addcdiv(x, small, x.abs() + 1, value=2.0),
            torch.isinf(x).float() + torch.isfinite(x).float(), (x > 0).any(1).float() + (x > 0).all().float(),
            torch.diagonal(x[..., :4], dim1=1, dim2=2), F.one_hot((x > 0).long(), 3).float(),
            torch.outer(row, row), torch.kron(x[0], x[0]), torch.einsum("...i,ji->...j", x, x[0]),
            torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 255), F.cosine_similarity(x, small, 1),
            F.avg_pool1d(x, 3, 2, 1), F.avg_pool2d(x[None], 2, 1, divisor_override=3),
        ]  # fmt: skip


class Spectra(nn.Module):
    """There and back, with what is done to spectra in between (Fourier layers)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> list[Tensor]:
        f, g = torch.fft.rfft2(x), torch.fft.fft(x)
        mixed = torch.einsum("nchw,cd->ndhw", f, self.weight) * (0.5 - 0.25j)
        return [
            torch.fft.irfft2(mixed, s=x.shape[2:]), torch.fft.ifft(g * g.conj() + g).abs(), f.abs(),
            torch.view_as_real(f)[..., 1], g.real - torch.fft.fftn(x).imag, torch.fft.irfft(torch.fft.rfft(x) / 2),
        ]  # fmt: skip


class Lengths(nn.Module):
    """Transforms of other lengths than their inputs', scaled otherwise, and a variance over any number of steps."""

    def forward(self, x: Tensor) -> list[Tensor]:
        n = x.shape[-1]
        f, g = torch.fft.rfft(x, n=2 * n), torch.fft.rfft2(x, norm="ortho")
        return [
            torch.fft.irfft(f * 0.5, n=2 * n)[..., :n], torch.fft.irfft2(g, s=x.shape[-2:], norm="ortho"), g.abs(),
            torch.fft.fft(x, norm="forward").real, torch.fft.ifft(torch.fft.fft(x), norm="forward").real,
            torch.fft.irfft(f, n=6), torch.fft.rfft(x, n=5).abs(), x.var(2), x.std((1, 2), keepdim=True),
        ]  # fmt: skip


class Sums(nn.Module):
    """Windows that reach beyond the end, or would stand beyond it, each sum divided by one number."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [
            F.avg_pool2d(x, k, s, p, ceil_mode=True, divisor_override=3)
            for k, s, p in ((3, 2, 0), (3, 2, 1), (2, 3, 0), (2, 2, 1))
        ]


class Autocast(nn.Module):
    """A region in which torch chooses bfloat16 for products."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.b(F.relu(self.a(x))).float()


class Halved(nn.Module):
    """Half of a width, which at the sizes of the capture is the batch and six more as well."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=0.5, mode="area")


def picture(*shape: int) -> tuple[Tensor, ...]:
    return (torch.randn(*shape),)


def words(*shape: int) -> tuple[Tensor, ...]:
    return (torch.randint(0, 9, shape),)


def bags(*begins: int) -> tuple[Tensor, ...]:
    return *words(7), torch.tensor(begins)


CASES: dict[str, tuple[Callable[[], nn.Module], Sequence[tuple[Tensor, ...]]]] = {
    "projected": (lambda: Recurrent(proj_size=3, batch_first=True), [picture(2, 4, 5), picture(3, 7, 5)]),
    "projected both ways": (
        lambda: Recurrent(proj_size=2, num_layers=2, bidirectional=True, bias=False), [picture(4, 2, 5)],
    ),
    "unpooled": (Unpooled, [picture(2, 3, 8, 8), picture(1, 3, 12, 6)]),
    "bags": (lambda: Bags("mean"), [words(2, 5), words(3, 7)]),
    "bags of offsets": (lambda: Bags("mean"), [bags(0, 2, 2, 6)]),
    "bags with weights": (lambda: Bags("sum"), [(*bags(0, 3), torch.rand(7))]),
    "bags to the last": (lambda: Bags("sum", True), [bags(0, 4, 7)]),
    "places": (Places, [(*picture(2, 4, 5), torch.tensor([2, 0, 2, 1]))]),
    "folded": (Fold, [picture(1, 12, 4)]),
    "lengths": (Lengths, [picture(2, 3, 8), picture(1, 3, 14)]),
    "sums": (Sums, [picture(2, 3, 11, 14)]),
    "spectra": (Spectra, [picture(2, 3, 8, 6)]),
    "parts": (Parts, [picture(2, 4, 5)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_call_runs_in_torch_and_in_onnx_runtime(name: str) -> None:
    torch.manual_seed(0)
    make, inputs = CASES[name]
    module = make().eval()
    graph = trace(module, inputs[0])
    session = onnxruntime.InferenceSession(to_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    for given in inputs:
        wanted = torch.utils._pytree.tree_leaves(module(*given))
        found = torch.utils._pytree.tree_leaves(to_module(graph)(*given))
        names = (one.name for one in session.get_inputs())
        written = session.run(None, dict(zip(names, (x.numpy() for x in given), strict=True)))
        for a, b, c in zip(wanted, found, written, strict=True):
            torch.testing.assert_close(b, a)
            rounding = 1e-5 * max(1.0, float(a.detach().abs().max()))
            torch.testing.assert_close(torch.from_numpy(c), a, rtol=1e-4, atol=rounding)


def test_autocast_computes_in_the_type_that_torch_chose() -> None:
    torch.manual_seed(0)
    module, (x,) = Autocast(), picture(4, 5)
    torch.testing.assert_close(to_module(trace(module, (x,)))(x), module(x), rtol=0, atol=0)


def test_a_size_follows_the_width_of_which_it_is_a_part() -> None:
    found = to_module(trace(Halved(), picture(2, 3, 16, 16)))
    (x,) = picture(3, 3, 36, 44)
    torch.testing.assert_close(found(x), Halved()(x))


def test_integers_are_those_of_the_example() -> None:
    """Made up ones would not begin at 0, as the first bag has to."""
    given = bags(0, 2, 6)
    feed = random_inputs(trace(Bags("mean"), given), 0)
    assert [feed[name].tolist() for name in feed] == [x.tolist() for x in given]
