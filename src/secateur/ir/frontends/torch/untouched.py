"""Leaves a module as it was: networks may change themselves while they run, and captures run them without data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Restore = Callable[[], None]


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Whatever happens inside, the module is afterwards what it was before, and so are the random generators.

    Attributes of all submodules are put back, caches in lists and dictionaries among them; tensors that are no
    parameters get their values back if they were written to; training flags, hooks, gradients and ``requires_grad``
    are as they were. Parameters' values are not copied, for their size: nothing that captures writes into them.
    """
    undo = [*_generators(), *_parameters(module), *_attributes(module)]
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _generators() -> Iterator[Restore]:
    """The generators of torch (on the CPU) and of Python."""
    state, python_state = torch.get_rng_state(), random.getstate()
    yield lambda: torch.set_rng_state(state)
    yield lambda: random.setstate(python_state)


def _parameters(module: nn.Module) -> Iterator[Restore]:
    for parameter in module.parameters():
        yield _parameter(parameter, parameter.requires_grad, parameter.grad)


def _parameter(parameter: nn.Parameter, requires_grad: bool, grad: torch.Tensor | None) -> Restore:
    def restore() -> None:
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)
        if parameter.grad is not grad:
            parameter.grad = grad

    return restore


def _attributes(module: nn.Module) -> Iterator[Restore]:
    """The contents of every submodule's dictionary and, through containers, of what lies in it."""
    seen: set[int] = set()
    todo: list[Any] = [child.__dict__ for child in module.modules()]
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            if not isinstance(item, nn.Parameter):
                yield _values(item)
        elif isinstance(item, dict):
            yield _refill(item, dict(item))
            todo.extend(item.values())
        elif isinstance(item, list):
            yield _slots(item, list(item))
            todo.extend(item)
        elif isinstance(item, set):
            yield _refill(item, set(item))
        elif isinstance(item, tuple):
            todo.extend(item)


def _refill(container: Any, content: Any) -> Restore:
    """A dictionary or a set keeps its identity: others may hold it."""

    def restore() -> None:
        if isinstance(container, dict) and _same(container, content):
            return
        container.clear()
        container.update(content)

    return restore


def _same(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """The same objects under the same keys in the same order."""
    return list(now) == list(before) and all(now[key] is before[key] for key in before)


def _slots(items: list[Any], content: list[Any]) -> Restore:
    def restore() -> None:
        items[:] = content

    return restore


def _values(tensor: torch.Tensor) -> Restore:
    """A tensor's numbers, where something was written into it."""
    if tensor.is_inference() or tensor.layout != torch.strided:
        return lambda: None
    version, copy = tensor._version, tensor.detach().clone()

    def restore() -> None:
        if tensor._version != version:
            with torch.no_grad():
                tensor.copy_(copy)

    return restore
