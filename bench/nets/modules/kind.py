"""What a module kind is: how to make it, what it is fed, and which refusals are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Arguments = tuple[Any, ...]
Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class Kind:
    """A module, its arguments, and others of another size where the original takes them.

    ``batch``: does the original take more examples at once? ``expect``: by leg, a part of the one sentence with which
    it is rightly refused. ``macs``: the share of its multiply-accumulates that shall remain.
    """

    name: str
    make: Make
    inputs: Callable[[], Arguments]
    other: Callable[[], Arguments] | None = None
    batch: bool = True
    expect: Mapping[str, str] = field(default_factory=dict)
    macs: float = 0.5


def normal(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Callable[[], Arguments]:
    """Standard normal tensors of these shapes."""
    return lambda: tuple(torch.randn(*shape).to(dtype) for shape in shapes)


def tokens(*shape: int, below: int = 50) -> Callable[[], Arguments]:
    """Random indices."""
    return lambda: (torch.randint(0, below, shape),)


def stem(width: int, inputs: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution with batch norm and an activation, as networks begin."""
    return nn.Sequential(nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def between(block: nn.Module, width: int, after: int = 0, stride: int = 1) -> nn.Sequential:
    """The block between a stem, a convolution after it, and a head: what feeds it and what it feeds can be cut."""
    after = after or width
    body = nn.Conv2d(after, after, 3, 1, 1)
    return nn.Sequential(stem(width, stride=stride), block, body, nn.ReLU(), nn.Conv2d(after, 8, 1))


def classifier(block: nn.Module, width: int, after: int = 0) -> nn.Sequential:
    """As ``between``, with the mean over the picture and ten scores."""
    return nn.Sequential(between(block, width, after), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """The function of ``x``."""
        return self.function(x)
