"""The note a torch capture leaves on its graph."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .graph import Array


@dataclass(frozen=True)
class Literal:
    """A number in a node's attribute that followed a dimension when the network was captured at two sizes.

    Element ``index`` of attribute ``attr`` is ``size * times // over + plus``; -1 where ``value`` is "". The size is
    ``value.shape[axis]``, times ``value.shape[a]`` for the axes ``a`` in ``also``; with ``modulo`` it is what lacks to
    the next multiple of it.
    """

    attr: str
    index: int
    value: str = ""
    axis: int = 0
    times: int = 1
    over: int = 1
    plus: int = 0
    also: tuple[int, ...] = ()
    modulo: int = 0


@dataclass(frozen=True)
class TorchOrigin:
    """What a graph from torch must remember to become the same module again.

    ``parameters`` and ``buffers`` are the module's names. ``in_spec`` and ``out_spec`` are pytree
    specs of ``(args, kwargs)`` and of the result. ``leaves`` holds one entry per leaf of the
    result: the position of a graph output, or a 1-tuple with a constant that is not a tensor.
    ``arguments`` holds one entry per leaf of the arguments: whether it is a tensor, and so an input.
    ``train_as`` says of nodes, by name, which operator they are in train mode where that is another
    one than in eval mode: "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "instance_norm".
    """

    outlives_rewrites: ClassVar[bool] = True
    parameters: frozenset[str] = frozenset()
    buffers: frozenset[str] = frozenset()
    in_spec: Any = None
    out_spec: Any = None
    leaves: tuple[int | tuple[Any], ...] = ()
    train_as: Mapping[str, str] = field(default_factory=dict)
    follows: Mapping[str, tuple[Literal, ...]] = field(default_factory=dict)
    fixed: tuple[tuple[str, int], ...] = ()
    why: str = ""
    capture_remarks: tuple[str, ...] = ()
    arguments: tuple[bool, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (pickle.dumps({**vars(self), "train_as": dict(self.train_as)}),)


@dataclass(frozen=True)
class Integers:
    """The integers among the example inputs, by the input's name: indices, positions, where something begins.

    What they may be only the module knows; whoever makes inputs up takes these.
    """

    outlives_rewrites: ClassVar[bool] = True
    examples: Mapping[str, Array] = field(default_factory=dict)


def _restored(fields: bytes) -> TorchOrigin:
    """The note from its fields; torch warns of its own specs whenever one is unpickled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return TorchOrigin(**pickle.loads(fields))
