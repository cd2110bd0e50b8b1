"""Kernels as a shared library that times itself: what is measured on another machine than this one.

Entry ``race{i}(arrays.., state, repeats)`` runs kernel i so many times between two looks at the clock. ``state`` is
int64[3]: which copy of the weights is next, and the clock in nanoseconds before and after. Weights lie in rooms of
``copies`` each, so that they come from memory, as in ``timing.arguments``. ``harness.c`` has what else is needed there.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.backends import backend_for
from secateur.codegen.dots import DOTS
from secateur.codegen.library import linker
from secateur.codegen.plan.family import Kernel, Workload
from secateur.codegen.plan.program import Choice
from secateur.codegen.plan.tensors import AnyArray
from secateur.codegen.targets import Target, at_home, missing_features, native
from secateur.ir import InputError

from .timing import COPIES, MEMORY

if TYPE_CHECKING:
    import tvm

SUMS = 256  # sums that a result is compared by
SOURCE = Path(__file__).with_name("harness.c")
Array = NDArray[np.float32] | NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the kernels of a spec run on: ``arrays`` as the template draws them, the result in the last of them.

    ``moving``: those that lie ``copies`` times, by their place, each with the elements from one copy to the next.
    """

    arrays: Sequence[AnyArray]
    first: int
    moving: Mapping[int, int]
    copies: int

    @staticmethod
    def of(spec: Workload, target: Target, memory: int = MEMORY) -> Inputs:
        """``memory``: bytes that all copies of the weights take together at most."""
        template = backend_for(target).templates[type(spec)]
        assert template.arrays is not None
        arrays, first = template.arrays(spec, target)
        places = [i for i in range(1, len(arrays) - 1) if i <= template.constants and arrays[i].dtype == np.float32]
        moving = {i: -(-arrays[i].size // 16) * 16 for i in places}  # each begins at a cache line
        copies = min(max(1, memory // max(4 * sum(moving.values()), 1)), COPIES) if moving else 1
        return Inputs(arrays, first, moving, copies)

    def size(self, place: int) -> int:
        """Elements of an argument."""
        return self.copies * self.moving[place] if place in self.moving else int(self.arrays[place].size)


def export(kernels: Mapping[int, Kernel], target: Target, path: Path, memory: int = MEMORY,
           begin: Callable[[int], None] = lambda i: None) -> dict[int, Kernel]:  # fmt: skip
    """Write the library of some kernels, and return those that TVM compiles: another costs itself alone.

    ``begin`` is told of each before it is compiled.

    Raises InputError where the cross compiler is missing, or the linker fails.
    """
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        objects = []
        for i, (spec, choice) in kernels.items():
            place = Path(folder) / f"{i}.o"
            begin(i)
            try:
                compiled(i, spec, choice, target, memory).write_to_file(str(place), "o")
            except Exception:  # whatever TVM or LLVM raise for a kernel that they refuse
                continue
            objects.append(place)
        if objects:
            link([*objects, harness(target)], target, path)
    return {int(place.stem): kernels[int(place.stem)] for place in objects}


def for_here(target: Target) -> Target:
    """The same templates as machine code for this machine: every fact of the target but whose instructions they are."""
    if at_home(target) and not missing_features(target):
        return target
    mine = native()
    pixels = DOTS[target.bf16].pixels if target.bf16 else 0
    return replace(target, triple=mine.triple, mcpu=mine.mcpu, features=mine.features,
                   bf16={0: "", 1: "portable", 2: "portable_matrix"}[pixels],
                   permute="portable" if target.permute else "")  # fmt: skip


def compiled(i: int, spec: Workload, choice: Choice | None, target: Target, memory: int = MEMORY) -> tvm.runtime.Module:
    """Kernel i with its entry. Raises what TVM or LLVM raise for a kernel that they refuse."""
    import tvm
    from tvm import tirx

    from secateur.codegen.emit.builder import const
    from secateur.codegen.emit.machine_code import compile_module
    from secateur.codegen.emit.threads import Step, sequence, together

    template, inputs = backend_for(target).templates[type(spec)], Inputs.of(spec, target, memory)
    name, entry = tvm.ir.GlobalVar(f"kernel{i}"), f"race{i}"
    buffers = [
        tirx.decl_buffer((const(inputs.size(k)),), array.dtype.name, f"a{k}", data_alignment=64)
        for k, array in enumerate(inputs.arrays)
    ]
    state = tirx.decl_buffer((const(3),), "int64", "state")
    repeats, turn = tirx.Var("repeats", "int64"), tirx.Var("turn", "int64")
    at = tirx.truncmod(tirx.BufferLoad(state, [const(0)]) + turn, const(inputs.copies))

    def place(k: int) -> tvm.ir.Expr:
        if k == 0:
            return const(inputs.first)
        return at * const(inputs.moving[k]) if k in inputs.moving else const(0)

    pointers = [tirx.address_of(tirx.BufferLoad(buffer, [place(k)])) for k, buffer in enumerate(buffers)]
    function, step = template.build(spec, choice, target), Step()
    step.add(function, name, pointers, None)

    def look(k: int) -> tirx.Stmt:
        return tirx.BufferStore(state, tirx.call_extern("int64", "secateur_now"), [const(k)])

    last = tirx.truncmod(tirx.BufferLoad(state, [const(0)]) + repeats, const(inputs.copies))
    body = sequence([
        look(1), tirx.For(turn, const(0), repeats, tirx.ForKind.SERIAL, together([step])), look(2),
        tirx.BufferStore(state, last, [const(0)]),
    ])  # fmt: skip
    main = tirx.PrimFunc([*buffers, state, repeats], body).with_attr("global_symbol", entry)
    return compile_module({name: function, tvm.ir.GlobalVar(entry): main}, target, entry)


def link(objects: Sequence[Path], target: Target, path: Path) -> None:
    """A shared library of object files. Raises InputError."""
    _compile(target, "-shared", *map(str, objects), "-o", str(path))


@cache
def harness(target: Target) -> Path:
    """``harness.c``, compiled for a target; made once in a process."""
    import tvm_ffi

    folder = Path(tempfile.mkdtemp(prefix="secateur-"))
    path, include = folder / "harness.o", tvm_ffi.libinfo.find_include_path()
    _compile(target, "-O2", "-fPIC", f"-I{include}", "-c", str(SOURCE), "-o", str(path))
    return path


def _compile(target: Target, *arguments: str) -> None:
    compiler = linker(target) or "cc"
    try:
        done = subprocess.run([compiler, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError(
            f"cannot link kernels for {target.name}: there is no {compiler}; install a C compiler (Debian: gcc)"
        ) from error
    if done.returncode:
        raise InputError(f"cannot link kernels for {target.name}: {compiler} says {done.stderr.strip()[-500:]}")
