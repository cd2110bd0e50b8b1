"""LSTMs with projections, which stay the call that they are: counted, and cut in both of their widths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.passes.analysis.cost import cost


class Reader(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.first = nn.Linear(5, 12)
        self.layer = nn.LSTM(12, 16, proj_size=8, batch_first=True, **options)  # type: ignore[arg-type]
        self.last = nn.Linear(8 * (2 if self.layer.bidirectional else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        """Scores from the last step and the mean cell."""
        y, (_, cells) = self.layer(torch.relu(self.first(x)))
        result: Tensor = self.last(y[:, -1]) + cells.mean((0, 2))[:, None]
        return result


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_projected_lstms_are_counted_and_cut(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    module = Reader(**options).eval()
    x = torch.randn(2, 7, 5)
    slim = secateur.compile(module, "l1", example_inputs=(x,), macs=0.4)
    matrices = sum(w.numel() for name, w in module.layer.named_parameters() if w.ndim == 2)
    rows = {row.label: row.macs for row in cost(slim.dense).layers}
    assert rows["layer"] == 2 * 7 * matrices
    assert slim.report.after is not None and slim.report.after.macs <= 0.4 * slim.report.before.macs
    kept = {name: entry for name, entry in slim.recipe.weights.items() if name.startswith("layer.weight_")}
    assert {0, 1} <= set(kept["layer.weight_hr_l0"]) and {0, 1} <= set(kept["layer.weight_ih_l0"])
    assert slim.report.verification is not None and slim.report.verification.law == "exact"
    assert {n for n, _ in slim.module().named_parameters()} == {n for n, _ in module.named_parameters()}
