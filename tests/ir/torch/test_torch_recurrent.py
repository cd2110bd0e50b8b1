"""Recurrent layers without gates, and cells in loops: hidden units are cut, the law holds, files run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import secateur  # noqa: E402
from secateur.ir.exporters.torch.module import to_module  # noqa: E402


class Layer(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self, layer: nn.RNNBase, width: int) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(6, 16), layer, nn.Linear(width, 4)

    def forward(self, x: Any) -> Any:
        return self.last(self.layer(F.relu(self.first(x)))[0])


class Loop(nn.Module):
    """A cell that torch has, from a first state of zeros."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.first, self.cell, self.last = nn.Linear(6, 16), cell, nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        h = x.new_zeros(x.shape[0], 16)
        state: Any = (h, h) if isinstance(self.cell, nn.LSTMCell) else h
        for step in x.unbind(1):
            state = self.cell(F.relu(self.first(step)), state)
        return self.last(state[0] if isinstance(state, tuple) else state)


class Written(nn.Module):
    """A cell of one gate, written out: the first state is joined to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.new, self.last = nn.Linear(22, 16), nn.Linear(22, 16), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        h = x.new_zeros(x.shape[0], 16)
        for step in x.unbind(1):
            gate = torch.sigmoid(self.gate(torch.cat([step, h], 1)))
            h = (1 - gate) * h + gate * torch.tanh(self.new(torch.cat([step, gate * h], 1)))
        return self.last(h)


NETS = {
    "tanh": lambda: Layer(nn.RNN(16, 16, batch_first=True), 16),
    "relu": lambda: Layer(nn.RNN(16, 16, 2, nonlinearity="relu", batch_first=True, bidirectional=True), 32),
    "lstm_cell": lambda: Loop(nn.LSTMCell(16, 16)),
    "gru_cell": lambda: Loop(nn.GRUCell(16, 16)),
    "rnn_cell": lambda: Loop(nn.RNNCell(16, 16)),
    "written": Written,
}


@pytest.mark.parametrize("name", NETS)
def test_hidden_units_go_and_the_file_runs(name: str, tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    net, x = NETS[name]().eval(), torch.randn(2, 3, 6)
    slim = secateur.compile(net, "l1", example_inputs=(x,), macs=0.5)
    assert slim.report.verification is not None
    assert slim.report.verification.passed
    slim.save(tmp_path / "slim.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "slim.onnx"), providers=["CPUExecutionProvider"])
    more = torch.randn(5, 3, 6)
    with torch.no_grad():
        want = slim.module().eval()(more)
    (have,) = session.run(None, {session.get_inputs()[0].name: more.numpy()})
    torch.testing.assert_close(torch.from_numpy(have), want, rtol=1e-4, atol=1e-5)


def test_a_constant_that_is_cut_here_and_read_whole_there_is_filled_up() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.scale = nn.Linear(6, 16), nn.Linear(16, 4), nn.Parameter(torch.randn(16))

        def forward(self, x: Any) -> Any:
            return self.b(self.a(x) * self.scale) + self.scale.cumsum(0).mean()

    torch.manual_seed(0)
    slim = secateur.compile(Both().eval(), "l1", example_inputs=(torch.randn(2, 6),), macs=0.5)
    assert slim.report.verification is not None
    assert slim.report.verification.passed
    assert any(entry.node == "cumsum" for entry in slim.recipe.mixing)


def test_recurrent_weights_that_are_computed_are_what_they_are_now() -> None:
    """A normalised recurrent weight has no place in the layer's stacked gates until it is a weight itself."""
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.weight_norm(nn.LSTM(5, 6), "weight_hh_l0").eval()
    x = torch.randn(4, 2, 5)
    graph = secateur.trace(layer, (x,))
    assert "lstm" in {node.op for node in graph.nodes}
    torch.testing.assert_close(to_module(graph)(x)[0], layer(x)[0])
