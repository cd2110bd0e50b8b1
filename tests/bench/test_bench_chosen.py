"""The choices of another program, taken by torch where its own scores say that they are as good."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.reach import answers, chosen


class Best(nn.Module):
    """Twice the features of the two best places."""

    def forward(self, x: Tensor) -> Tensor:
        best = torch.topk(x[..., 0], 2, 1)[1]
        return 2 * x.gather(1, best[..., None].expand(-1, -1, 3))


X = torch.tensor([[[0.5, 1.0, 2.0], [0.9, 3.0, 4.0], [0.9000001, 5.0, 6.0], [0.1, 7.0, 8.0]]])


def choice(*places: int) -> list[tuple[np.ndarray, np.ndarray]]:
    at = np.array([places])
    return [(X.numpy()[:, :, 0][:, places], at)]


def test_the_other_order_of_equal_scores_is_taken() -> None:
    assert torch.equal(chosen.outputs(Best(), X, choice(1, 2), 1e-3), 2 * X[:, [1, 2]])
    assert torch.equal(Best()(X), 2 * X[:, [2, 1]])


@pytest.mark.parametrize("choices", [choice(0, 2), choice(2, 0), [], choice(1, 2) * 2])
def test_worse_ones_are_not_and_all_must_be_made(choices: list[tuple[np.ndarray, np.ndarray]]) -> None:
    with pytest.raises(AssertionError):
        chosen.outputs(Best(), X, choices, 1e-3)


def test_scores_that_are_not_torchs_own_are_refused() -> None:
    with pytest.raises(AssertionError, match="its scores are off"):
        chosen.outputs(Best(), X, [(np.array([[0.7, 0.7]], np.float32), np.array([[1, 2]]))], 1e-3)


def test_answers_are_judged_with_those_choices_and_with_nothing_else() -> None:
    other = 2 * X[:, [1, 2]].numpy()
    assert answers.judged(Best(), X, [other], lambda: ([other], choice(1, 2))) == (0.0, 1)
    for outputs, choices in (([other], []), ([other + 1], choice(1, 2)), ([other], choice(2, 1))):
        with pytest.raises(AssertionError):
            answers.judged(Best(), X, [other], lambda given=(outputs, choices): given)  # type: ignore[misc]
