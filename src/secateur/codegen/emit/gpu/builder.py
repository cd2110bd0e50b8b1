"""Writing kernels for GPUs as TIR, as one work item of a group sees them. CUDA and OpenCL are made of one function.

A kernel gets every operand as a memory and an offset in elements, since OpenCL has no pointers into its memories. All
indices are 32-bit. What belongs to a work item alone is a small local array, which compilers keep in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tvm
from tvm import tirx

from secateur.codegen.emit.types import Buffer, Expr, Function, Stmt, Var

INT, FLOAT = "int32", "float32"
LAUNCH = "launch"  # attribute of a kernel: the extents of its grid, and the work items of a group
LEAST = -3.4028234663852886e38
KERNEL = 2  # TVM's CallingConv.kDeviceKernelLaunch


def number(value: float) -> Expr:
    """A float32."""
    return tirx.FloatImm(FLOAT, float(value))


def integer(value: int) -> Expr:
    """An index."""
    return tirx.IntImm(INT, value)


def div(a: Expr, b: int) -> Expr:
    """The quotient of numbers that are not negative."""
    return a if b == 1 else tirx.truncdiv(a, integer(b))


def mod(a: Expr, b: int) -> Expr:
    """The remainder of numbers that are not negative."""
    return integer(0) if b == 1 else tirx.truncmod(a, integer(b))


@dataclass(frozen=True, eq=False)
class Pointer:
    """An operand: a memory, and where in it the operand begins."""

    buffer: Buffer
    offset: Expr


class GpuBuilder:
    """A kernel under construction for ``grid`` groups (three extents) of ``items`` work items in a row.

    ``group`` is where in the grid a group is, ``item`` which of its group a work item is.
    """

    def __init__(self, grid: Sequence[int], items: int) -> None:
        self.grid, self.items = (*grid, *(1,) * (3 - len(grid))), items
        self._groups = [tirx.Var(f"group_{axis}", INT) for axis in "xyz"]
        self._item = tirx.Var("item", INT)
        self.group = [var if size > 1 else integer(0) for var, size in zip(self._groups, self.grid, strict=True)]
        self.item: Expr = self._item if items > 1 else integer(0)
        self.memories: list[Var] = []
        self.offsets: list[Var] = []
        self.declared: list[Stmt] = []
        self.stack: list[list[Stmt]] = [[]]
        self.count = 0

    # --- memory -----------------------------------------------------------------------------------------------------

    def pointer(self, name: str, dtype: str = FLOAT) -> Pointer:
        """A parameter: an operand in the device's memory."""
        memory = tirx.Var(name, tvm.ir.PointerType(tvm.ir.PrimType(dtype), "global"))
        offset = tirx.Var(f"{name}_at", INT)
        buffer = tirx.decl_buffer(((1 << 31) - 1,), dtype, f"{name}_m", data=memory)
        self.memories.append(memory)
        self.offsets.append(offset)
        self.declared.append(tirx.DeclBuffer(buffer, data=memory))
        return Pointer(buffer, offset)

    def load(self, source: Pointer | Buffer, index: Expr) -> Expr:
        """One element."""
        if isinstance(source, Pointer):
            return tirx.BufferLoad(source.buffer, [source.offset + index])
        return tirx.BufferLoad(source, [_index(index)])

    def load_if(self, condition: Expr | None, source: Pointer, index: Expr) -> Expr:
        """One element where the condition holds, 0 and nothing read elsewhere."""
        value = self.load(source, index)
        return value if condition is None else tirx.if_then_else(condition, value, number(0.0))

    def store(self, target: Pointer | Buffer, index: Expr, value: Expr) -> None:
        """Write one element."""
        if isinstance(target, Pointer):
            self.emit(tirx.BufferStore(target.buffer, value, [target.offset + index]))
        else:
            self.emit(tirx.BufferStore(target, value, [_index(index)]))

    def local(self, count: int, start: float | Expr | None = None) -> Buffer:
        """Numbers of a work item's own."""
        buffer = self._array(count, "local")
        for i in range(count if start is not None else 0):
            self.store(buffer, i, number(start) if isinstance(start, (int, float)) else start)
        return buffer

    def shared(self, count: int) -> Buffer:
        """Numbers of a group: whoever reads what another has written waits at a ``barrier`` in between."""
        return self._array(count, "shared")

    def _array(self, count: int, scope: str) -> Buffer:
        self.count += 1
        buffer = tirx.decl_buffer((count,), FLOAT, f"{scope}{self.count}", scope=scope)
        self.emit(tirx.AllocBuffer(buffer))
        return buffer

    def copy(self, target: Buffer, source: Buffer | Pointer, index: Expr, count: int) -> None:
        """``count`` numbers to the beginning of a local array, four or two at a time, of which ``index`` is a multiple.

        From shared memory, or an operand that begins at a multiple of four numbers, as constants do.
        """
        wide = next(n for n in (4, 2, 1) if count % n == 0)
        if isinstance(source, Pointer):  # written so that TVM sees the factor of four in it
            source, index = source.buffer, div(source.offset, 4) * 4 + index
        for i in range(0, count, wide):
            if wide == 1:
                self.store(target, i, self.load(source, index + i))
                continue
            read, write = (tirx.Ramp(_index(at), integer(1), wide) for at in (index + i, i))
            self.emit(tirx.BufferStore(target, tirx.BufferLoad(source, [read]), [write]))

    def add(self, total: Buffer, index: Expr, value: Expr) -> None:
        """Add to an element of a local array."""
        self.store(total, index, self.load(total, index) + value)

    # --- control ----------------------------------------------------------------------------------------------------

    def emit(self, statement: Stmt) -> None:
        """Add a statement to the innermost open block."""
        self.stack[-1].append(statement)

    def bind(self, value: Expr, name: str = "t") -> Expr:
        """A name for a number, computed here once."""
        if isinstance(value, (int, tirx.IntImm, tirx.Var)):
            return value
        self.count += 1
        var = tirx.Var(f"{name}{self.count}", value.ty)
        self.emit(tirx.Bind(var, value))
        return var

    def held(self, value: Expr) -> Expr:
        """A float that is computed here once, and that TVM's simplifier does not look through."""
        kept = self.local(1)
        self.store(kept, 0, value)
        return self.load(kept, 0)

    def loop(self, extent: int, body: Callable[[Expr], None], name: str = "i", unroll: bool = False) -> None:
        """``for i in range(extent): body(i)``; ``unroll`` asks the compiler of the device to."""
        if extent == 1:
            body(integer(0))
        elif extent > 1:
            kind = tirx.ForKind.UNROLLED if unroll else tirx.ForKind.SERIAL
            self.span(integer(0), integer(extent), body, name, kind)

    def span(self, start: Expr, extent: Expr, body: Callable[[Expr], None], name: str = "i",
             kind: tirx.ForKind = tirx.ForKind.SERIAL) -> None:  # fmt: skip
        """``extent`` rounds from ``start`` on; both may be known only when the kernel runs."""
        self.count += 1
        var = tirx.Var(f"{name}{self.count}", INT)
        self.stack.append([])
        body(var)
        inner = self._close()
        self.emit(tirx.For(var, start, extent, kind, inner))

    def strided(self, extent: int, body: Callable[[Expr], None], name: str = "i") -> None:
        """``body(i)`` for ``i`` in ``range(extent)``, shared among the work items of a group."""
        whole, rest = divmod(extent, self.items)
        self.loop(whole, lambda r: body(r * self.items + self.item), name)
        if rest:
            last = whole * self.items + self.item
            self.branch(self.item < rest, lambda: body(last))

    def branch(self, condition: Expr | None, body: Callable[[], None]) -> None:
        """``if condition: body()``; None always holds."""
        if condition is None:
            body()
            return
        self.stack.append([])
        body()
        inner = self._close()
        self.emit(tirx.IfThenElse(condition, inner, None))

    def barrier(self) -> None:
        """All work items of a group wait for each other. It stands where all of them come by."""
        self.emit(tirx.Evaluate(tirx.call_intrin(INT, "tirx.tvm_storage_sync", "shared")))

    def combine(self, value: Expr, scratch: Buffer, join: Callable[[Expr, Expr], Expr]) -> Expr:
        """One number of all work items of a group, by halves in ``scratch`` (as many numbers as items, a power of 2).

        ``scratch`` may be used again right after.
        """
        return self.combine_all([value], scratch, join)[0]

    def combine_all(self, values: Sequence[Expr], scratch: Buffer, join: Callable[[Expr, Expr], Expr]) -> list[Expr]:
        """Several at once, with ``scratch`` for all of them."""
        if self.items == 1:
            return [self.held(value) for value in values]
        places = [self.item + i * self.items for i in range(len(values))]
        for place, value in zip(places, values, strict=True):
            self.store(scratch, place, value)
        half = self.items // 2
        while half:
            self.barrier()

            def fold(half: int = half) -> None:
                for place in places:
                    self.store(scratch, place, join(self.load(scratch, place), self.load(scratch, place + half)))

            self.branch(self.item < half, fold)
            half //= 2
        self.barrier()
        found = [self.held(self.load(scratch, i * self.items)) for i in range(len(values))]
        self.barrier()
        return found

    def _close(self) -> Stmt:
        block = self.stack.pop()
        return block[0] if len(block) == 1 else tirx.SeqStmt(block)

    def finish(self) -> Function:
        """The function: operands, then their offsets, in the order in which they were asked for."""
        body = self._close()
        tags = [("threadIdx.x", self._item, self.items)]
        tags += [(f"blockIdx.{a}", v, n) for a, v, n in zip("xyz", self._groups, self.grid, strict=True)]
        for tag, var, size in tags:
            axis = tirx.IterVar(tvm.ir.Range(0, size), var, tirx.IterVar.ThreadIndex, tag)
            body = tirx.AttrStmt(axis, "thread_extent", integer(size), body)
        function = tirx.PrimFunc([*self.memories, *self.offsets], tirx.SeqStmt([*self.declared, body]))
        function = function.with_attr("tirx.noalias", True).with_attr("tirx.is_global_func", True)
        return function.with_attr("calling_conv", KERNEL).with_attr(LAUNCH, [*self.grid, self.items])


def _index(index: Expr) -> Expr:
    return integer(index) if isinstance(index, int) else index


def flat(total: int, items: int = 256) -> GpuBuilder:
    """A builder for one work item an element."""
    items = min(items, -(-total // 32) * 32)
    return GpuBuilder((-(-total // items),), items)


def each(k: GpuBuilder, total: int, body: Callable[[Expr], None]) -> None:
    """``body(i)`` in the work item of element i, of a builder that ``flat`` made."""
    i = k.bind(k.group[0] * k.items + k.item)
    whole = k.grid[0] * k.items == total
    k.branch(None if whole else i < total, lambda: body(i))
