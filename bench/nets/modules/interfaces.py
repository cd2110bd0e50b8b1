"""What goes in and comes out, element types, state, train mode: how modules are called, not what they compute."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kind import Apply, Arguments, Kind, between, classifier, normal, stem


class Both(NamedTuple):
    """Two results with names."""

    scores: Tensor
    features: Tensor


class Forms(nn.Module):
    """The same network with another form of result."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.body, self.head, self.form = nn.Sequential(stem(24), stem(32, 24)), nn.Conv2d(32, 6, 1), form

    def forward(self, x: Tensor) -> Any:
        """Scores and more."""
        y = self.body(x)
        scores = self.head(y)
        forms: dict[str, Any] = {
            "dict": {"z": scores, "a": scores.mean((2, 3))}, "named": Both(scores, scores.sigmoid()),
            "nested": [(scores, None), {"deep": [scores.tanh(), 3]}], "none": (scores, None), "input": (scores, x),
            "twice": (scores, scores), "constant": (scores, torch.ones(2)), "features": (scores, y),
        }  # fmt: skip
        return forms[self.form]


class Takes(nn.Module):
    """The same network with another form of arguments."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.a, self.b, self.head, self.form = stem(16), stem(16), nn.Conv2d(32, 6, 1), form
        self.inner = nn.Conv2d(32, 32, 3, 1, 1)

    def forward(self, x: Any, y: Any = None, scale: float = 1.0) -> Any:
        """Scores of both, or of one twice."""
        if self.form == "dict":
            x, y = x["left"], x["right"]
        elif self.form == "list":
            x, y = x
        elif y is None:
            y = x.flip(3)
        return self.head(F.relu(self.inner(torch.cat([self.a(x), self.b(y) * scale], 1))))


class Unused(nn.Module):
    """A layer that nothing calls, an argument that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.never, self.head = nn.Sequential(stem(24), stem(32, 24)), nn.Linear(7, 7), nn.Conv2d(32, 6, 1)

    def forward(self, x: Tensor, ignored: Tensor) -> Any:
        """Scores."""
        return self.head(self.body(x))


class Late(nn.Module):
    """Blocks left out at random in train mode (stochastic depth), functional dropout, a flag that is read."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.a, self.b, self.head, self.form = stem(32), nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(32, 6, 1), form

    def forward(self, x: Tensor) -> Any:
        """Scores."""
        y = self.a(x)
        z = F.relu(self.b(y))
        if self.form == "depth" and self.training:
            keep = (torch.rand(x.shape[0], 1, 1, 1) > 0.2).float()
            z = z * keep / 0.8
        if self.form == "functional":
            z = F.dropout(z, 0.3, self.training)
        return self.head(y + z)


class Counts(nn.Module):
    """A buffer that is written in every call."""

    past: Tensor

    def __init__(self, read: bool) -> None:
        super().__init__()
        self.register_buffer("past", torch.zeros(1, 8, 2))
        self.a, self.b, self.c, self.read = nn.Conv1d(8, 24, 3), nn.Conv1d(24, 24, 3), nn.Conv1d(24, 4, 1), read

    def forward(self, x: Tensor) -> Any:
        """A stream, piece by piece."""
        y = torch.cat([self.past, x], 2) if self.read else F.pad(x, (2, 0))
        self.past.copy_(x[:, :, -2:].detach())
        return self.c(F.relu(self.b(F.relu(self.a(y)))))


class Branches(nn.Module):
    """Control flow that depends on numbers, or on sizes."""

    def __init__(self, data: bool) -> None:
        super().__init__()
        self.a, self.b, self.c, self.data = stem(24), stem(32, 24), nn.Conv2d(32, 6, 1), data

    def forward(self, x: Tensor) -> Any:
        """One path or the other."""
        y = self.a(x)
        if self.data and y.mean() > 1:
            y = y * 2
        if x.shape[2] > 12:
            y = F.avg_pool2d(y, 2)
        return self.c(self.b(y))


class Mixed(nn.Module):
    """Part of the network in another precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.a, self.b, self.c, self.dtype = stem(24), nn.Conv2d(24, 32, 3, 1, 1).to(dtype), nn.Conv2d(32, 6, 1), dtype

    def forward(self, x: Tensor) -> Any:
        """Scores in single precision."""
        return self.c(F.relu(self.b(self.a(x).to(self.dtype))).float())


class Stateful(nn.Module):
    """A recurrent state as an argument that may be missing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.head = stem(16), nn.Conv2d(48, 16, 1), nn.Conv2d(16, 4, 1)
        self.inner = nn.Conv2d(32, 48, 3, 1, 1)

    def forward(self, x: Tensor, state: Tensor | None = None) -> Any:
        """Scores and the next state."""
        y = self.a(x)
        if state is None:
            state = torch.zeros_like(y)
        share = torch.sigmoid(self.gate(F.relu(self.inner(torch.cat([y, state], 1)))))
        state = share * state + (1 - share) * y
        return self.head(state), state


def _jit() -> nn.Module:
    return torch.jit.script(between(nn.Conv2d(16, 16, 3, 1, 1), 16))


def _typed(dtype: torch.dtype) -> nn.Module:
    return classifier(nn.Conv2d(24, 24, 3, 1, 1), 24).to(dtype)


def _inner() -> Arguments:
    return ({"left": torch.randn(2, 3, 16, 16), "right": torch.randn(2, 3, 16, 16)},)


def _list() -> Arguments:
    return ([torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)],)


_P, _O, _TWO = normal((2, 3, 16, 16)), normal((1, 3, 24, 20)), normal((2, 3, 16, 16), (2, 3, 16, 16))

KINDS = (
    *(Kind(f"out_{form}", lambda form=form: Forms(form), _P, _O)  # type: ignore[misc]
      for form in ("dict", "named", "nested", "none", "input", "twice", "constant", "features")),
    Kind("in_two", lambda: Takes("two"), _TWO, normal((1, 3, 24, 20), (1, 3, 24, 20))),
    Kind("in_dict", lambda: Takes("dict"), _inner),
    Kind("in_list", lambda: Takes("list"), _list),
    Kind("in_default", lambda: Takes("two"), _P, _O),
    Kind("in_none", lambda: Takes("two"), lambda: (torch.randn(2, 3, 16, 16), None)),
    Kind("in_number", lambda: Takes("two"), lambda: (*_TWO(), 0.5)),
    Kind("in_unused", Unused, normal((2, 3, 16, 16), (2, 5))),
    Kind("in_state", Stateful, normal((2, 3, 16, 16), (2, 16, 16, 16))),
    Kind("in_state_none", Stateful, lambda: (torch.randn(2, 3, 16, 16), None)),
    Kind("train_dropout", lambda: classifier(nn.Sequential(nn.Dropout(0.2), nn.Dropout2d(0.1)), 24), _P, _O),
    Kind("train_depth", lambda: Late("depth"), _P, _O),
    Kind("train_functional_dropout", lambda: Late("functional"), _P, _O),
    Kind("state_read", lambda: Counts(True), normal((1, 8, 10)), batch=False,
         expect={"prune": "is written to in forward"}),
    Kind("state_counted", lambda: Counts(False), normal((1, 8, 10)), batch=False),
    Kind("flow_of_numbers", lambda: Branches(True), _P, _O, expect={"prune": "interfaces.py:"}),
    Kind("flow_of_sizes", lambda: Branches(False), _P, _O),
    Kind("dtype_half", lambda: _typed(torch.float16), normal((2, 3, 16, 16), dtype=torch.float16)),
    Kind("dtype_bfloat16", lambda: _typed(torch.bfloat16), normal((2, 3, 16, 16), dtype=torch.bfloat16)),
    Kind("dtype_double", lambda: _typed(torch.float64), normal((2, 3, 16, 16), dtype=torch.float64)),
    Kind("dtype_mixed_half", lambda: Mixed(torch.float16), _P, _O),
    Kind("dtype_mixed_double", lambda: Mixed(torch.float64), _P, _O),
    Kind("jit_script", _jit, _P, _O, expect={"prune": "torch.onnx.export"}),
    Kind("lazy", lambda: between(nn.LazyConv2d(32, 3, padding=1), 16, 32), _P, _O,
         expect={"prune": "Run the module once"}),
    Kind("frozen_parameters", lambda: between(nn.Conv2d(24, 24, 3, 1, 1), 24).requires_grad_(False), _P, _O),
    Kind("in_place", lambda: between(Apply(lambda x: x.clone().add_(1).mul_(0.5).clamp_(min=0)), 24), _P, _O),
)  # fmt: skip
