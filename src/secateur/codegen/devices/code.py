"""Kernels for a GPU and the order in which they are launched, as a library's file holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ARENA, WEIGHTS, TABLES = "arena", "weights", "tables"  # memories besides those of inputs and outputs
AnyArray = NDArray[Any]


@dataclass(frozen=True)
class Kernel:
    """The groups of a kernel's grid along three axes, and how many work items share a group."""

    grid: tuple[int, int, int]
    items: int


@dataclass(frozen=True)
class Launch:
    """One call of a kernel. ``arguments``: by operand the memory, and the first element in it; ``label``: the layer.

    Memories are ``ARENA``, ``WEIGHTS``, ``TABLES`` and the names of inputs and outputs.
    """

    kernel: str
    arguments: tuple[tuple[str, int], ...]
    label: str = ""


@dataclass(frozen=True)
class Resources:
    """What ptxas gave a kernel: registers of a work item, bytes of shared memory of a group.

    ``spilled``: bytes of a work item's numbers that went to memory, its stack and spills to and from it.
    """

    registers: int
    spilled: int
    shared: int


@dataclass(frozen=True, eq=False)
class Code:
    """The text of all kernels, launches in order, constants. ``binary`` is what nvcc made, nothing for OpenCL.

    ``inputs`` and ``outputs`` name the memories of those; ``arena_words`` is the size of the arena in 4-byte words.
    """

    source: str
    kernels: Mapping[str, Kernel]
    launches: Sequence[Launch]
    inputs: Sequence[str]
    outputs: Sequence[str]
    weights: NDArray[np.float32]
    tables: NDArray[np.int32]
    arena_words: int
    binary: bytes = b""
    resources: Mapping[str, Resources] = field(default_factory=dict)

    def plan(self) -> str:
        """All but text, binary and constants, as JSON."""
        return json.dumps(
            {
                "kernels": {name: [*kernel.grid, kernel.items] for name, kernel in self.kernels.items()},
                "launches": [[one.kernel, one.arguments, one.label] for one in self.launches],
                "inputs": list(self.inputs), "outputs": list(self.outputs), "arena_words": self.arena_words,
                "resources": {name: asdict(one) for name, one in self.resources.items()},
            },
            separators=(",", ":"),
        )  # fmt: skip


def read(source: str, binary: bytes, plan: str, weights: NDArray[np.float32], tables: NDArray[np.int32]) -> Code:
    """The inverse of ``Code.plan``. Raises KeyError, ValueError or TypeError where it is something else."""
    data = json.loads(plan)
    kernels = {name: Kernel((int(x), int(y), int(z)), int(items)) for name, (x, y, z, items) in data["kernels"].items()}
    launches = [
        Launch(kernel, tuple((str(memory), int(at)) for memory, at in arguments), label)
        for kernel, arguments, label in data["launches"]
    ]
    known = {ARENA, WEIGHTS, TABLES, *data["inputs"], *data["outputs"]}
    for one in launches:
        if one.kernel not in kernels or any(memory not in known or at < 0 for memory, at in one.arguments):
            raise ValueError(f"launch of {one.kernel} names what is not there")
    resources = {name: Resources(**row) for name, row in data["resources"].items()}
    return Code(source, kernels, launches, data["inputs"], data["outputs"], weights, tables, int(data["arena_words"]),
                binary, resources)  # fmt: skip


class Session(Protocol):
    """Code that is loaded on a device, with its constants and its arena there."""

    @property
    def device(self) -> str:
        """Its name."""
        ...

    def run(self, inputs: Sequence[AnyArray], outputs: Sequence[AnyArray]) -> None:
        """Copy the inputs there, launch everything in order, copy the outputs back. Raises InputError."""
        ...

    def put(self, inputs: Sequence[AnyArray], outputs: Sequence[AnyArray]) -> None:
        """Copy the inputs there, and make room for outputs like these: what ``launch`` and ``seconds`` run on."""
        ...

    def launch(self) -> None:
        """Launch everything in order. It need not be done on return."""
        ...

    def wait(self) -> None:
        """Until all that was launched is done."""
        ...

    def seconds(self) -> list[float]:
        """What each launch takes in one run, by the device's clock."""
        ...
