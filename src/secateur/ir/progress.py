"""How long-running work reports what it is at: one signature from the command line down to the tuner."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Protocol, TypeAlias, cast


class Progress(Protocol):
    """A function that is told what runs from now on, and how much of it is done.

    ``done`` of ``total`` are examples, kernels, measurements or rounds of it; ``total`` is None where nobody knows.
    ``what`` names it, "" is what ran before. What it returns is not looked at; what it raises ends the work.
    """

    def __call__(self, done: int, total: int | None, what: str, /) -> object: ...


Listener: TypeAlias = Progress | Callable[[str], object]  # what callers may give


def quiet(done: int, total: int | None, what: str, /) -> None:
    """Nobody listens."""


def listening(listener: Listener | None) -> Progress:
    """What to tell ``listener``: one that can be called with a name alone gets the name of each stage, once."""
    if listener is None:
        return quiet
    if not _takes_a_name(listener):
        return cast(Progress, listener)
    told, last = cast("Callable[[str], object]", listener), [""]

    def tell(done: int, total: int | None, what: str, /) -> None:
        if what and what != last[0]:
            last[0] = what
            told(what)

    return tell


def _takes_a_name(listener: Callable[..., object]) -> bool:
    try:
        inspect.signature(listener).bind("")
    except TypeError:
        return False
    except ValueError:  # some built-in functions have no signature
        return True
    return True
