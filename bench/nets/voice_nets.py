"""Networks that listen, with the weights of their packages: the encoder of Resemblyzer, and what it reads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.data import material
from secateur.ir import Array

RATE, WINDOW, HOP, BANDS = 16000, 400, 160, 40
FRAMES = 160  # the encoder's own window, 1.6 s


class VoiceEncoder(nn.Module):
    """Resemblyzer 0.1.4's encoder (GE2E; Wan et al., 2018): three LSTM layers of 256 units, and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        """f32[batch, frames, 40] -> f32[batch, 256] of length one."""
        steps, _ = self.lstm(mels)
        raw = torch.relu(self.linear(steps[:, -1]))
        found: Tensor = raw / torch.linalg.vector_norm(raw, dim=1, keepdim=True)
        return found


def resemblyzer() -> VoiceEncoder:
    """The trained encoder, in eval mode."""
    module = VoiceEncoder()
    state = torch.load(material.path("resemblyzer.pt"), map_location="cpu", weights_only=True)["model_state"]
    module.load_state_dict({n: w for n, w in state.items() if n in module.state_dict()})
    return module.eval()


def mels(samples: Array) -> Array:
    """f32[frames, 40]: powers in mel bands, as librosa's melspectrogram has them with Resemblyzer's parameters."""
    x, window = torch.from_numpy(samples), torch.hann_window(WINDOW)
    spectrum = torch.stft(x, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
    found: Array = (_filters() @ (spectrum.abs() ** 2).numpy()).T.astype(np.float32)
    return found


def _filters() -> Array:
    """[bands, frequencies]: triangles on Slaney's mel scale, each of area one."""
    edges = _hertz(np.linspace(_mel(0.0), _mel(RATE / 2), BANDS + 2))
    frequencies = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    found: Array = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return found


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * float(np.log(hertz / 1000) / np.log(6.4))


def _hertz(mel: Array) -> Array:
    found: Array = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    return found
