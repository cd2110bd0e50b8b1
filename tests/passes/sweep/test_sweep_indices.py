"""Calibration data whose integers no table of the network has are refused as data, not as a fault."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import secateur


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv, self.fc = nn.Embedding(10, 16), nn.Conv1d(16, 32, 3, padding=1), nn.Linear(32, 4)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.fc(torch.relu(self.conv(self.table(words).transpose(1, 2))).mean(-1))
        return found


@pytest.mark.parametrize("policy", ["l1", "apoz", "taylor"])
def test_an_index_that_the_table_does_not_have(policy: str) -> None:
    good = torch.arange(14).reshape(2, 7) % 10
    with pytest.raises(secateur.InputError, match="cannot be run on these inputs"):
        secateur.compile(Words().eval(), policy, example_inputs=(good,), calibration=[np.full((8, 7), 10)])
