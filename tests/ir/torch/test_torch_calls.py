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
            torch.testing.assert_close(torch.from_numpy(c), a, rtol=1e-4, atol=1e-5)


def test_integers_are_those_of_the_example() -> None:
    """Made up ones would not begin at 0, as the first bag has to."""
    given = bags(0, 2, 6)
    feed = random_inputs(trace(Bags("mean"), given), 0)
    assert [feed[name].tolist() for name in feed] == [x.tolist() for x in given]
