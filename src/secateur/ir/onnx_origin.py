"""What is remembered of an ONNX file so that it can be written back as its author knew it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from .graph import Array, Node

CAPTURED = "secateur.sizes"  # key of metadata: the sizes at which a network was captured
ZEROS = "secateur.zeros."  # keys of metadata begin so: which blocks of a weight are zero


@dataclass(frozen=True)
class Original:
    """One ONNX node and the IR node it became.

    ``inputs`` has one entry per input of the proto: the position among the IR node's inputs, the name of a
    constant in ``OnnxOrigin.constants``, or None where the input is absent.
    """

    proto: bytes
    node: Node
    inputs: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Part:
    """One node of the file that became several here: these, and the values that the file's node reads.

    ``fused`` where it is of a domain of its own: who checks a recipe with the file alone does not know its weights.
    """

    nodes: tuple[str, ...]
    inputs: tuple[str | None, ...]
    fused: bool = False


@dataclass(frozen=True)
class OnnxOrigin:
    """The frame of the file: everything but nodes and weights.

    ``header`` is a serialised ModelProto (opsets, metadata, producer, inputs, outputs) without nodes and
    initialisers; ``originals`` are keyed by the first output; ``names`` maps names that were cleaned to what the
    file says; ``specialised`` lists, in words, the dynamic axes that had to be fixed, and ``guessed`` the sizes that
    were chosen for others, for counting and timing;
    ``parts`` lists the file's nodes that are several here, by their first output;
    ``probes`` gives other sizes of the symbolic dimensions that the network is known to accept.
    """

    outlives_rewrites: ClassVar[bool] = True

    header: bytes
    opset: int
    originals: Mapping[str, Original] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    specialised: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()
    probes: tuple[Mapping[str, int], ...] = ()
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def capture_remarks(self) -> tuple[str, ...]:
        """What a user must know of the sizes of the inputs."""
        return (*self.specialised, *self.guessed)
