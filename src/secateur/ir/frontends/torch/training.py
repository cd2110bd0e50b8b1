"""Which modules do another thing in train mode than a capture in eval mode can see."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType

from torch import nn

SHOWN = 4


def train_remarks(module: nn.Module) -> tuple[str, ...]:
    """A sentence for the report where a module of the user's reads ``self.training``, or attention has dropout.

    Layers of torch that differ in train mode become the same layers again; their dropout and statistics are not lost.
    """
    found: dict[str, list[str]] = {}
    for path, child in module.named_modules():
        if _branches(child):
            found.setdefault(type(child).__name__, []).append(path)
    if not found:
        return ()
    named = [
        f"{kind} ('{paths[0]}'{f' and {len(paths) - 1} more' if len(paths) > 1 else ''})"
        for kind, paths in found.items()
    ]
    shown = ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN} more" if len(named) > SHOWN else "")
    return (f"in train mode too the result does what {shown} did in eval mode; they read their training flag",)


def _branches(module: nn.Module) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0)
    own = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.") and kind is not object]
    return any(
        "training" in names
        for kind in own
        for function in vars(kind).values()
        if isinstance(code := getattr(function, "__code__", None), CodeType)
        for names in _attributes(code)
    )


def _attributes(code: CodeType) -> Iterator[tuple[str, ...]]:
    """The names that a function reads, functions inside of it included."""
    yield code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _attributes(constant)
