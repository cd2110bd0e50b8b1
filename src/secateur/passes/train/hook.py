"""What hooks into a training loop: an object that is told before and after each step of an optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

State = dict[str, object]  # tensors, numbers, text, and lists and dicts of these: what a checkpoint may hold


class Hook:
    """Told of each step of an optimiser once it was attached (``attach``); any loop will do.

    ``before_step``: gradients are there, weights have not moved yet. ``after_step``: they have. What a hook knows from
    one step to the next is in ``state_dict``, so that training which was killed goes on as if nothing had been.
    """

    def before_step(self, optimiser: Optimizer) -> None:
        """Change gradients here."""

    def after_step(self, optimiser: Optimizer) -> None:
        """Change weights here."""

    def state_dict(self) -> State:
        """What must be known to go on: nothing unless a hook says otherwise."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on from there."""


@dataclass(frozen=True)
class Attached:
    """Hooks on an optimiser, until ``remove`` is called; a context manager calls it at its end."""

    handles: tuple[RemovableHandle, ...]

    def remove(self) -> None:
        """Tell the hooks of no further step."""
        for handle in self.handles:
            handle.remove()

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def attach(optimiser: Optimizer, *hooks: Hook) -> Attached:
    """Let these hooks see every step of the optimiser, in this order before and after it.

    An optimiser that computes gradients itself (``step(closure)``) has none before its step: for those hooks that
    change gradients take another one.
    """
    return Attached(tuple(handle for hook in hooks for handle in _listening(optimiser, hook)))


def _listening(optimiser: Optimizer, hook: Hook) -> tuple[RemovableHandle, RemovableHandle]:
    def before(of: Optimizer, _: object, __: object) -> None:
        hook.before_step(of)

    def after(of: Optimizer, _: object, __: object) -> None:
        hook.after_step(of)

    return optimiser.register_step_pre_hook(before), optimiser.register_step_post_hook(after)


def rates(optimiser: Optimizer) -> dict[Tensor, float]:
    """The learning rate of every parameter now: what a proximal step is scaled by."""
    return {p: float(group["lr"]) for group in optimiser.param_groups for p in group["params"]}
