"""Recurrent layers and cells, sequences and audio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from .kind import Kind, normal, tokens


class Between(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self, layer: nn.RNNBase, width: int, last: bool = False, state: bool = False) -> None:
        super().__init__()
        self.first, self.layer, self.last, self.state = nn.Linear(12, 24), layer, nn.Linear(width, 10), state
        self.one = last

    def forward(self, x: Tensor) -> Any:
        """Scores at each step or the last; with the last state where it is asked for."""
        y, state = self.layer(F.relu(self.first(x)))
        found = self.last(y[:, -1] if self.one else y)
        return (found, state) if self.state else found


class Cells(nn.Module):
    """Cells of torch in a loop over the steps."""

    def __init__(self, cell: nn.Module, width: int) -> None:
        super().__init__()
        self.first, self.cell, self.last, self.width = nn.Linear(12, 24), cell, nn.Linear(width, 5), width

    def forward(self, x: Tensor) -> Tensor:
        """Scores at each step."""
        h = x.new_zeros(x.shape[0], self.width)
        state: Any = (h, h) if isinstance(self.cell, nn.LSTMCell) else h
        found = []
        for step in x.unbind(1):
            state = self.cell(F.relu(self.first(step)), state)
            found.append(self.last(state[0] if isinstance(state, tuple) else state))
        return torch.stack(found, 1)


class ByHand(nn.Module):
    """A gated cell written out (minimal gated unit) with layer norm."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.gate, self.new, self.norm = nn.Linear(12 + width, width), nn.Linear(12 + width, width), nn.LayerNorm(width)
        self.last, self.width = nn.Linear(width, 5), width

    def forward(self, x: Tensor) -> Any:
        """Scores of the last step."""
        h = x.new_zeros(x.shape[0], self.width)
        for i in range(x.shape[1]):
            gate = torch.sigmoid(self.gate(torch.cat([x[:, i], h], 1)))
            h = (1 - gate) * h + gate * torch.tanh(self.norm(self.new(torch.cat([x[:, i], gate * h], 1))))
        return self.last(h)


class ConvLSTM(nn.Module):
    """A convolutional cell over frames."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.gates, self.last, self.width = nn.Conv2d(3 + width, 4 * width, 3, 1, 1), nn.Conv2d(width, 2, 1), width

    def forward(self, x: Tensor) -> Tensor:
        """A picture for each frame."""
        n, steps, _, rows, columns = x.shape
        h = c = x.new_zeros(n, self.width, rows, columns)
        found = []
        for i in range(steps):
            a, b, d, e = self.gates(torch.cat([x[:, i], h], 1)).chunk(4, 1)
            c = torch.sigmoid(a) * c + torch.sigmoid(b) * torch.tanh(d)
            h = torch.sigmoid(e) * torch.tanh(c)
            found.append(self.last(h))
        return torch.stack(found, 1)


class Reader(nn.Module):
    """Convolutions, height folded into the channels, a recurrent layer (text recognition)."""

    def __init__(self, layer: Callable[..., nn.RNNBase]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((4, 2)), nn.Conv2d(16, 24, 3, 1, 1)
        )
        self.layer = layer(24 * 4, 32, bidirectional=True, batch_first=True)
        self.last = nn.Linear(64, 20)

    def forward(self, x: Tensor) -> Tensor:
        """Log probabilities at each column."""
        y = self.body(x)
        y = y.flatten(1, 2).transpose(1, 2)
        return F.log_softmax(self.last(self.layer(y)[0]), -1)


class WaveBlock(nn.Module):
    """Gated dilated convolutions with conditioning (WaveNet), weights normalised."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        norm = parametrizations.weight_norm
        self.first, self.condition = norm(nn.Conv1d(1, width, 3, padding=1)), norm(nn.Conv1d(4, 2 * width, 1))
        self.gates = nn.ModuleList(norm(nn.Conv1d(width, 2 * width, 3, padding=d, dilation=d)) for d in (1, 2, 4))
        self.skips = nn.ModuleList(norm(nn.Conv1d(width, width, 1)) for _ in range(3))
        self.last = norm(nn.Conv1d(width, 8, 1))

    def forward(self, x: Tensor, c: Tensor) -> Any:
        """Of a wave ``[N, 1, L]`` and its conditions ``[N, 4, L]``."""
        y, total = self.first(x), torch.zeros(())
        for gate, skip in zip(self.gates, self.skips, strict=True):
            a, b = (gate(y) + self.condition(c)).chunk(2, 1)
            z = skip(torch.tanh(a) * torch.sigmoid(b))
            y, total = y + z, total + z
        return self.last(F.relu(total))


class Causal(nn.Module):
    """Convolutions padded on the left alone, with a crop (TCN)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, width, 3, padding=2), nn.Conv1d(width, width, 3, dilation=2)
        self.c = nn.Conv1d(width, 5, 1)

    def forward(self, x: Tensor) -> Any:
        """As long as the input."""
        y = F.relu(self.a(x))[..., :-2]
        return self.c(F.relu(self.b(F.pad(y, (4, 0)))))


class Spectrum(nn.Module):
    """A short-time Fourier transform, its magnitude, a mask, and back."""

    window: Tensor

    def __init__(self, back: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU(),
                                  nn.Conv2d(24, 1, 1), nn.Sigmoid())  # fmt: skip
        self.register_buffer("window", torch.hann_window(32))
        self.back = back

    def forward(self, x: Tensor) -> Tensor:
        """The masked magnitudes, or the wave again."""
        found = torch.stft(x, 32, 8, window=self.window, return_complex=True)
        mask = self.body(found.abs().unsqueeze(1)).squeeze(1)
        return torch.istft(found * mask, 32, 8, window=self.window) if self.back else mask


class Unet1d(nn.Module):
    """Strided convolutions with gated units, a recurrent layer, transposed convolutions with shortcuts (Demucs)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv1d(i, o, 8, 4, 2), nn.ReLU(), nn.Conv1d(o, 2 * o, 1), nn.GLU(1))
            for i, o in ((2, 16), (16, 32))
        )
        self.lstm, self.mix = nn.LSTM(32, 32, bidirectional=True), nn.Linear(64, 32)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv1d(i, 2 * i, 3, padding=1), nn.GLU(1), nn.ConvTranspose1d(i, o, 8, 4, 2))
            for i, o in ((32, 16), (16, 4))
        )

    def forward(self, x: Tensor) -> Any:
        """Two sources of two channels."""
        kept = []
        y = (x - x.mean((1, 2), keepdim=True)) / (x.std((1, 2), keepdim=True) + 1e-5)
        for layer in self.down:
            y = layer(y)
            kept.append(y)
        y = self.mix(self.lstm(y.permute(2, 0, 1))[0]).permute(1, 2, 0)
        for layer in self.up:
            y = layer(y + kept.pop()[..., : y.shape[-1]])
        return y.view(y.shape[0], 2, 2, y.shape[-1])


class Separator(nn.Module):
    """Learnt analysis and synthesis with masks between (ConvTasNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Conv1d(1, 32, 8, 4, bias=False), nn.ConvTranspose1d(32, 1, 8, 4, bias=False)
        self.norm, self.body = nn.GroupNorm(1, 32), nn.Conv1d(32, 24, 1)
        self.depth = nn.Sequential(nn.PReLU(), nn.Conv1d(24, 24, 3, padding=1, groups=24), nn.BatchNorm1d(24))
        self.mask = nn.Conv1d(24, 64, 1)

    def forward(self, x: Tensor) -> Any:
        """Two waves of one."""
        w = F.relu(self.encode(x.unsqueeze(1)))
        y = self.body(self.norm(w))
        masks = self.mask(y + self.depth(y)).view(x.shape[0], 2, 32, -1).relu()
        return self.decode((w.unsqueeze(1) * masks).flatten(0, 1)).view(x.shape[0], 2, -1)


class Text(nn.Module):
    """Embedded words, convolutions of several widths, maxima over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(50, 24), nn.Linear(48, 4)
        self.parts = nn.ModuleList(nn.Conv1d(24, 16, k) for k in (2, 3, 4))

    def forward(self, index: Tensor) -> Any:
        """Scores of a sentence."""
        x = self.embed(index).transpose(1, 2)
        return self.last(torch.cat([F.relu(part(x)).amax(2) for part in self.parts], 1))


class Bags(nn.Module):
    """Rows of a table averaged, or added by weights, in bags that begin at given places."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(50, 32, mode=mode)
        self.a, self.b = nn.Linear(32, 24), nn.Linear(24, 4)

    def forward(self, index: Tensor, begins: Tensor, shares: Tensor) -> Any:
        """Scores of each bag."""
        y = self.embed(index, begins, per_sample_weights=shares if self.embed.mode == "sum" else None)
        return self.b(F.relu(self.a(y)))


_S, _L = normal((2, 6, 12)), normal((1, 9, 12))

KINDS = (
    Kind("rnn_lstm", lambda: Between(nn.LSTM(24, 32, batch_first=True), 32), _S, _L),
    Kind("rnn_lstm_two_layers", lambda: Between(nn.LSTM(24, 32, 2, batch_first=True), 32), _S, _L),
    Kind("rnn_lstm_both_ways",
         lambda: Between(nn.LSTM(24, 32, batch_first=True, bidirectional=True), 64), _S, _L),
    Kind("rnn_lstm_last_step", lambda: Between(nn.LSTM(24, 32, batch_first=True), 32, last=True), _S, _L),
    Kind("rnn_lstm_state", lambda: Between(nn.LSTM(24, 32, batch_first=True), 32, state=True), _S, _L, macs=0.75),
    Kind("rnn_lstm_projected", lambda: Between(nn.LSTM(24, 32, batch_first=True, proj_size=16), 16), _S, _L),
    Kind("rnn_lstm_projected_both_ways", lambda: Between(nn.LSTM(24, 32, 2, bidirectional=True, proj_size=8), 16),
         _S, _L),
    Kind("rnn_gru", lambda: Between(nn.GRU(24, 32, batch_first=True), 32), _S, _L),
    Kind("rnn_gru_both_ways", lambda: Between(nn.GRU(24, 32, 2, batch_first=True, bidirectional=True), 64), _S, _L),
    Kind("rnn_tanh", lambda: Between(nn.RNN(24, 32, batch_first=True), 32), _S, _L),
    Kind("rnn_relu", lambda: Between(nn.RNN(24, 32, 2, "relu", batch_first=True), 32), _S, _L),
    Kind("rnn_tanh_both_ways", lambda: Between(nn.RNN(24, 32, batch_first=True, bidirectional=True), 64), _S, _L),
    Kind("cell_lstm", lambda: Cells(nn.LSTMCell(24, 32), 32), _S),
    Kind("cell_gru", lambda: Cells(nn.GRUCell(24, 32), 32), _S),
    Kind("cell_rnn", lambda: Cells(nn.RNNCell(24, 32), 32), _S),
    Kind("cell_by_hand", ByHand, _S),
    Kind("cell_convolutional", ConvLSTM, normal((2, 3, 3, 8, 8)), normal((1, 3, 3, 12, 8))),
    Kind("audio_text_reader", lambda: Reader(nn.LSTM), normal((2, 1, 16, 20)), normal((1, 1, 16, 32))),
    Kind("audio_text_reader_gru", lambda: Reader(nn.GRU), normal((2, 1, 16, 20)), normal((1, 1, 16, 32))),
    Kind("audio_wave_block", WaveBlock, normal((2, 1, 32), (2, 4, 32)), normal((1, 1, 48), (1, 4, 48))),
    Kind("audio_causal", Causal, normal((2, 4, 24)), normal((1, 4, 40))),
    Kind("audio_spectrum_mask", lambda: Spectrum(False), normal((2, 256)), normal((1, 512))),
    Kind("audio_spectrum_and_back", lambda: Spectrum(True), normal((2, 256)), normal((1, 512))),
    Kind("audio_unet", Unet1d, normal((2, 2, 256)), normal((1, 2, 512))),
    Kind("audio_separator", Separator, normal((2, 256)), normal((1, 512))),
    Kind("text_convolutions", Text, tokens(2, 12), tokens(1, 20)),
    Kind("text_bag", lambda: nn.Sequential(nn.EmbeddingBag(50, 32), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 4)),
         tokens(2, 12), tokens(1, 20)),
    Kind("text_bag_offsets", lambda: Bags("mean"),
         lambda: (torch.randint(0, 50, (12,)), torch.tensor([0, 3, 3, 8]), torch.ones(12)), batch=False),
    Kind("text_bag_weighted", lambda: Bags("sum"),
         lambda: (torch.randint(0, 50, (12,)), torch.tensor([0, 3, 3, 8]), torch.rand(12)), batch=False),
)  # fmt: skip
