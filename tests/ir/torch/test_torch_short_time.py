"""Short-time Fourier transforms: read, and written as ONNX at any length."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.exporters.torch.module import to_module
from secateur.ir.frontends.torch.trace import trace


class Spectrum(nn.Module):
    """A wave's spectrum, scaled and put together again, and its magnitudes."""

    def __init__(self, back: dict[str, Any], length: bool = False, **options: Any) -> None:
        super().__init__()
        self.options, self.back, self.length = options, {**options, **back}, length
        self.scale = nn.Parameter(torch.rand(options["n_fft"] // 2 + 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The wave and the magnitudes."""
        found = torch.stft(x, **self.options, return_complex=True)
        if self.options.get("onesided") is False:
            return (found.abs(),)
        turned = torch.polar(self.scale.expand(found.shape), found.abs())
        wave = torch.istft(found * self.scale + 0.1 * turned, **self.back, length=x.shape[-1] if self.length else None)
        return wave, torch.view_as_real(found)


HANN = torch.hann_window(16)
CASES = {
    "window": Spectrum({}, True, n_fft=16, hop_length=4, window=HANN),
    "short window": Spectrum({}, n_fft=20, hop_length=5, win_length=16, window=HANN),
    "uneven hop": Spectrum({}, True, n_fft=16, hop_length=5, window=HANN, normalized=True),
    "many frames over a sample": Spectrum({}, n_fft=18, hop_length=1, window=torch.hamming_window(18)),
    "both sides": Spectrum({}, n_fft=16, hop_length=4, window=HANN, onesided=False),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_read_and_written_at_any_length(name: str) -> None:
    torch.manual_seed(0)
    module = CASES[name].eval()
    x = torch.randn(2, 80)
    graph = trace(module, (x,))
    session = onnxruntime.InferenceSession(to_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    for given in (x, torch.randn(1, 133)):
        want = [y.detach() for y in module(given)]
        have = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        for a, b, c in zip(want, have, to_module(graph)(given), strict=True):
            torch.testing.assert_close(c.detach(), a)
            np.testing.assert_allclose(b, a.numpy(), atol=2e-5 * float(a.abs().max()))
