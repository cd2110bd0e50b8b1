"""One board, reached through TVM's RPC: what it is, whether it computes what it should, and how long it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.host import family_in, features_in
from secateur.codegen.plan.family import Kernel, Workload
from secateur.codegen.targets import Target

from .portable import SUMS, Inputs
from .timing import Timed

SAID = 1 << 16  # bytes of what a machine says of itself
TOLERANCE = 1e-3  # of the largest sum; sums in another order are far below
SESSION = 120  # seconds after which a board's server ends a session, so that a kernel that hangs does not keep it
Sums = NDArray[np.float64]


class Lost(Exception):
    """The connection broke while kernel ``at`` ran, or before the first of them (None)."""

    def __init__(self, at: int | None, why: str) -> None:
        super().__init__(why)
        self.at = at


@dataclass(frozen=True)
class Facts:
    """What a board says of itself; texts are empty where it does not say."""

    node: str
    machine: str
    tvm: str
    family: str
    features: frozenset[str]

    @staticmethod
    def parse(text: str) -> Facts:
        """From what ``describe`` in harness.c writes."""
        head, _, cpu = text.partition("[cpu]\n")
        found = {key: _first(rf"^{key}: (.*)$", head) for key in ("node", "machine")}
        version = _first(r"^(?:__version__|version).*=\s*['\"]([^'\"]+)['\"]", head)
        return Facts(found["node"], found["machine"], version, family_in(cpu), features_in(cpu))

    def unfit(self, target: Target, tvm: str) -> str | None:
        """Why what is measured there would be worth nothing, and what to do; None where it fits."""
        if self.tvm and self.tvm != tvm:
            return f"runs TVM {self.tvm}, and this machine {tvm}; install apache-tvm=={tvm} there"
        lacking = sorted(set(target.features) - self.features) if self.features else []
        if lacking:
            return f"lacks {', '.join(lacking)}, which code for {target.name} needs; name a target that fits it"
        return None


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1].strip() if found else ""


class Board:
    """A machine with a library of kernels on it (``portable.export``): another one by RPC, or this one.

    ``module`` has the functions of the library, ``place`` puts an array where they can reach it and ``fetch`` brings it
    back.
    """

    def __init__(
        self, module: Any, place: Callable[[NDArray[Any]], Any], fetch: Callable[[Any], NDArray[Any]],
        empty: Callable[[int, str], Any],
    ) -> None:  # fmt: skip
        self.module, self.place, self.fetch, self.empty = module, place, fetch, empty
        self._arguments: dict[Workload, list[Any]] = {}
        self._results: dict[Workload, Any] = {}
        self._state: dict[Workload, Any] = {}

    def facts(self) -> Facts:
        """What the machine says of itself."""
        said = self.place(np.zeros(SAID, np.uint8))
        self.module["describe"](said)
        return Facts.parse(self.fetch(said).tobytes().partition(b"\0")[0].decode(errors="replace"))

    def load(self, spec: Workload, inputs: Inputs) -> None:
        """Put what the kernels of a spec run on into the board's memory."""
        arguments = []
        for k, array in enumerate(inputs.arrays):
            one = self.place(array)
            if k in inputs.moving:
                room = self.empty(inputs.size(k), array.dtype.name)
                self.module["spread"](room, one, inputs.moving[k])
                one = room
            arguments.append(one)
        self._arguments[spec], self._state[spec] = arguments, self.place(np.zeros(3, np.int64))
        self._results[spec] = self.place(inputs.arrays[-1])

    def sums(self, i: int, spec: Workload) -> Sums:
        """Run kernel i once on fresh memory; the sums of its result."""
        result, found = self._arguments[spec][-1], self.place(np.zeros(SUMS, np.float64))
        self.module["spread"](result, self._results[spec], 1 << 40)
        self.module[f"race{i}"](*self._arguments[spec], self.place(np.zeros(3, np.int64)), 1)
        self.module["sums"](found, result)
        return self.fetch(found)

    def timed(self, i: int, spec: Workload) -> Timed:
        """Kernel i on the board's own clock."""
        function, state = self.module[f"race{i}"], self._state[spec]
        arguments = [*self._arguments[spec], state]

        def run(repeats: int) -> float:
            function(*arguments, repeats)
            _, start, end = self.fetch(state).tolist()
            return float(end - start) * 1e-9

        return run


def here(path: Path) -> Board:
    """This machine, with a library that was made for it."""
    from secateur.codegen.library import aligned
    from secateur.codegen.runtime import ffi

    def place(array: NDArray[Any]) -> NDArray[Any]:
        room = aligned(array.size, array.dtype)
        room[:] = array
        return room

    return Board(ffi().load_module(str(path)), place, np.copy, aligned)


def connect(place: tuple[str, int, str], library: Path) -> Board:
    """A session on a board that a tracker handed out, with a library on it. Raises Lost where it cannot be had."""
    from tvm import rpc, runtime

    try:
        session = rpc.connect(*place, session_timeout=SESSION)
        session.upload(str(library))
        module, device = session.load_module(library.name), session.cpu()
    except Exception as error:
        raise Lost(None, str(error).strip().splitlines()[-1]) from error
    return Board(
        module, lambda array: runtime.tensor(array, device=device), lambda found: found.numpy(),
        lambda size, dtype: runtime.empty((size,), dtype, device),
    )  # fmt: skip


def wrong(have: Sums, want: Sums) -> float:
    """By how much sums are off, in the largest of them; 0.0 where they agree."""
    if np.array_equal(np.isfinite(have), np.isfinite(want)):
        scale = float(np.max(np.abs(want[np.isfinite(want)]), initial=0.0)) or 1.0
        off = float(np.max(np.abs((have - want)[np.isfinite(want)]), initial=0.0)) / scale
        return off if off > TOLERANCE else 0.0
    return float("inf")


def reference(kernels: Mapping[int, Kernel], target: Target, library: Path, memory: int,
              begin: Callable[[int], None]) -> dict[int, Sums]:  # fmt: skip
    """The sums of each kernel's result on this machine, by a library that can run here."""
    board, found = here(library), dict[int, Sums]()
    for spec in dict.fromkeys(spec for spec, _ in kernels.values()):
        board.load(spec, Inputs.of(spec, target, memory))
    for i, (spec, _) in kernels.items():
        begin(i)
        found[i] = board.sums(i, spec)
    return found


def checked(board: Board, kernels: Mapping[int, Kernel], target: Target, want: Mapping[int, Sums], memory: int,
            begin: Callable[[int], None]) -> dict[int, float]:  # fmt: skip
    """Run every kernel once; by how much the results are off, of those that are. Raises Lost."""
    found: dict[int, float] = {}
    at: int | None = None
    try:
        for spec in dict.fromkeys(spec for spec, _ in kernels.values()):
            board.load(spec, Inputs.of(spec, target, memory))
        for at, (spec, _) in kernels.items():
            begin(at)
            found[at] = wrong(board.sums(at, spec), want[at])
    except Exception as error:
        raise Lost(at, str(error).strip().splitlines()[-1]) from error
    return {i: off for i, off in found.items() if off}


def timings(board: Board, kernels: Mapping[int, Kernel], at: Callable[[int], None]) -> dict[int, Timed]:
    """How to time each kernel; whatever breaks meanwhile is ``Lost`` at that kernel."""

    def run(i: int, timed: Timed, repeats: int) -> float:
        at(i)
        try:
            return timed(repeats)
        except Exception as error:
            raise Lost(i, str(error).strip().splitlines()[-1]) from error

    return {i: partial(run, i, board.timed(i, spec)) for i, (spec, _) in kernels.items()}
