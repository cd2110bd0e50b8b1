"""Writing kernels as TIR, statement by statement: loops, vectors and accumulators that stay in registers.

TVM's pitfalls that this file keeps away from the templates: an accumulator is a buffer of its own with one vector in
it, storage rewriting stays off (it would join them), and its allocation is marked ``disable_lower_builtin``, or it
would go to the heap, at the price of a thousand multiply-adds a tile; a kernel returns 0 (a private function without a
result is refused by LLVM's verifier).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
from tvm import tirx

from .types import Buffer, Expr, Function, Stmt, Var

INT = "int64"
WORKERS = "workers"  # attribute of a kernel: see KernelBuilder


def const(value: int) -> Expr:
    """An index."""
    return tirx.IntImm(INT, value)


def number(value: float) -> Expr:
    """A float32."""
    return tirx.FloatImm("float32", float(value))


class KernelBuilder:
    """A function under construction; statements go to the innermost open block.

    With more than one of ``threads``, its parallel loops are partitioned among them: the function gets one more
    parameter, the number of the worker whose part it computes, and its attribute ``WORKERS`` says how many there are.
    What lies outside of parallel loops is done by all of them. There is no barrier before the kernel ends, so none may
    read what another has written.
    """

    def __init__(self, lanes: int, threads: int = 1) -> None:
        self.lanes, self.threads = lanes, threads
        self.worker = tirx.Var("worker", "int32")
        self.partitioned = False
        self.inside = False  # of what a worker does by itself
        self.alone = 0  # stores outside of that
        self.parameters: list[Var] = []
        self.declared: list[Stmt] = []
        self.stack: list[list[Stmt]] = [[]]
        self.included: list[str] = []
        self.count = 0

    def pointer(self, name: str, dtype: str = "float32") -> Buffer:
        """A parameter that points into the arena, the weights or a table; seen as a flat buffer."""
        pointer = tirx.Var(name, tvm.ir.PointerType(tvm.ir.PrimType(dtype), "global"))
        buffer = tirx.decl_buffer((1 << 40,), dtype, f"{name}_b", data=pointer, data_alignment=64)
        self.parameters.append(pointer)
        self.declared.append(tirx.DeclBuffer(buffer, data=pointer))
        return buffer

    def include(self, code: str) -> None:
        """Functions in LLVM's language that the kernel may call; those of a name are the same wherever they stand."""
        if code not in self.included:
            self.included.append(code)

    def emit(self, statement: Stmt) -> None:
        """Add a statement."""
        self.stack[-1].append(statement)

    def fresh(self, name: str) -> Var:
        """A new index variable."""
        self.count += 1
        return tirx.Var(f"{name}{self.count}", INT)

    def loop(self, extent: int, body: Callable[[Expr], None], parallel: bool = False, name: str = "i") -> None:
        """``for i in range(extent): body(i)``; a loop of one round is unrolled."""
        if extent < 1:
            return
        if parallel and self.threads > 1:
            self.everyone(lambda worker: self._partition(worker, extent, body, name))
        elif extent == 1:
            body(const(0))
        else:
            self._for(const(0), const(extent), body, name)

    def span(self, start: Expr, end: Expr, body: Callable[[Expr], None], name: str = "i") -> None:
        """``for i in range(start, end): body(i)``, both known when the kernel runs."""
        self._for(start, end - start, body, name)

    def _for(self, start: Expr, extent: Expr, body: Callable[[Expr], None], name: str) -> None:
        var = self.fresh(name)
        self.stack.append([])
        body(var)
        self.emit_closed(lambda inner: tirx.For(var, start, extent, tirx.ForKind.SERIAL, inner))

    def everyone(self, body: Callable[[Expr], None]) -> None:
        """``body(worker)`` by every worker, each in memory of its own."""
        self.partitioned = self.threads > 1
        before, self.inside = self.inside, True
        body(self.worker.astype(INT) if self.partitioned else const(0))
        self.inside = before

    def _partition(self, worker: Expr, extent: int, body: Callable[[Expr], None], name: str) -> None:
        """The rounds of this worker; what is left over goes to the last, whose part is the smallest."""
        each = -(-extent // self.threads)
        if extent == 1:
            self.branch(worker == self.threads - 1, lambda: body(const(0)))
            return
        start, mine = worker * each, const(each)
        if extent % self.threads:
            mine = tirx.max(tirx.min(const(each), const(extent) - start), const(0))
        self._for(start, mine, body, name)

    def branch(self, condition: Expr, yes: Callable[[], None], no: Callable[[], None] | None = None) -> None:
        """``if condition: yes() else: no()``."""
        self.stack.append([])
        yes()
        if no is None:
            self.emit_closed(lambda then: tirx.IfThenElse(condition, then, None))
            return
        then = self.close()
        self.stack.append([])
        no()
        self.emit_closed(lambda other: tirx.IfThenElse(condition, then, other))

    def close(self) -> Stmt:
        """Take the innermost block away, as one statement."""
        block = self.stack.pop()
        return block[0] if len(block) == 1 else tirx.SeqStmt(block)

    def emit_closed(self, wrap: Callable[[Stmt], Stmt]) -> None:
        """Close the innermost block and add what ``wrap`` makes of it."""
        statement = self.close()
        self.emit(wrap(statement))

    def load(self, buffer: Buffer, index: Expr, lanes: int = 0) -> Expr:
        """A vector; of another width than the kernel's if ``lanes`` says so."""
        lanes = lanes or self.lanes
        if lanes == 1:
            return self.scalar(buffer, index)
        return tirx.BufferLoad(buffer, [tirx.Ramp(_index(index), const(1), lanes)])

    def scalar(self, buffer: Buffer, index: Expr) -> Expr:
        """One element."""
        return tirx.BufferLoad(buffer, [_index(index)])

    def gather(self, buffer: Buffer, places: Sequence[Expr]) -> Expr:
        """A vector of elements that lie anywhere, each loaded by itself: instructions that gather are no faster."""
        return tirx.Shuffle(
            [self.scalar(buffer, at) for at in places], [tirx.IntImm("int32", i) for i in range(len(places))]
        )

    def splat(self, value: Expr) -> Expr:
        """The same number in all lanes."""
        value = number(value) if isinstance(value, (int, float)) else value
        return value if self.lanes == 1 else tirx.Broadcast(value, self.lanes)

    def merge(self, buffer: Buffer, index: Expr, mask: Sequence[bool], other: Expr) -> Expr:
        """The lanes of a vector in memory where ``mask`` is true, of ``other`` elsewhere; nothing else is read."""
        address = tirx.address_of(tirx.BufferLoad(buffer, [_index(index)]))
        no, yes = (tirx.Broadcast(tirx.IntImm("bool", b), self.lanes) for b in (0, 1))
        lanes = self.shuffle([no, yes], [self.lanes * m for m in mask])
        return tirx.call_llvm_pure_intrin(f"float32x{self.lanes}", "llvm.masked.load", address, lanes, other)

    @staticmethod
    def shuffle(vectors: Sequence[Expr], lanes: Sequence[int]) -> Expr:
        """A vector of these lanes of the vectors, counted through them."""
        return tirx.Shuffle(list(vectors), [tirx.IntImm("int32", i) for i in lanes])

    def fence(self, value: Expr) -> Var:
        """A name for a vector that LLVM computes as it is written: it joins no shuffle before with one after."""
        return self.bind(tirx.call_llvm_pure_intrin(f"float32x{self.lanes}", "llvm.arithmetic.fence", value))

    def store(self, buffer: Buffer, index: Expr, vector: Expr, lanes: int = 0) -> None:
        """Write a vector; of another width than the kernel's if ``lanes`` says so."""
        lanes = lanes or self.lanes
        if lanes == 1:
            self.store_scalar(buffer, index, vector)
            return
        self._store(buffer, tirx.Ramp(_index(index), const(1), lanes), vector)

    def store_scalar(self, buffer: Buffer, index: Expr, value: Expr) -> None:
        """Write one element."""
        self._store(buffer, _index(index), value)

    def _store(self, buffer: Buffer, index: Expr, value: Expr) -> None:
        self.alone += buffer.scope() == "global" and not self.inside
        self.emit(tirx.BufferStore(buffer, value, [index]))

    def bind(self, value: Expr, dtype: str | None = None, name: str = "t") -> Var:
        """A name for a value, computed here once."""
        self.count += 1
        var = tirx.Var(f"{name}{self.count}", dtype or value.ty)
        self.emit(tirx.Bind(var, value))
        return var

    def vector(self, value: Expr) -> Var:
        """A name for a vector."""
        return self.bind(value)

    def held(self, value: Expr) -> Var:
        """A name for a vector that TVM does not look through.

        Its simplifier replaces names by what they stand for: where each is used several times, as in polynomials of
        polynomials, what it looks at grows by that factor with every name (a mish behind Winograd's sums took it
        minutes). What is read from a buffer it leaves alone, and LLVM keeps the buffer in a register.
        """
        buffer = self.accumulators(1)[0]
        self.set(buffer, value)
        return self.bind(self.get(buffer))

    def accumulators(self, count: int, start: Expr | None = None) -> list[Buffer]:
        """Vectors that can be assigned to, each in a buffer of its own."""
        found = []
        for _ in range(count):
            self.count += 1
            buffer = tirx.decl_buffer((self.lanes,), "float32", f"acc{self.count}", scope="local", data_alignment=64)
            self.emit(tirx.AllocBuffer(buffer, annotations={"disable_lower_builtin": tirx.IntImm("bool", 1)}))
            found.append(buffer)
        if start is not None:
            for buffer in found:
                self.set(buffer, start)
        return found

    def get(self, accumulator: Buffer) -> Expr:
        """Its value."""
        return self.load(accumulator, 0)

    def set(self, accumulator: Buffer, value: Expr) -> None:
        """Give it a value."""
        self.store(accumulator, 0, value)

    def add(self, accumulator: Buffer, value: Expr) -> None:
        """Add to it; LLVM contracts a product to a fused multiply-add."""
        self.set(accumulator, self.get(accumulator) + value)

    def prefetch(self, buffer: Buffer, index: Expr, near: bool = True) -> None:
        """Ask for a cache line, past the end of the buffer too; into the second cache alone if not ``near``."""
        address = tirx.address_of(tirx.BufferLoad(buffer, [_index(index)]))
        numbers = [tirx.IntImm("int32", i) for i in (0, 3 if near else 2, 1)]  # to read, keep in these levels, data
        self.emit(tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", address, *numbers)))

    def finish(self) -> Function:
        """The function."""
        parameters = [*self.parameters, self.worker] if self.partitioned else self.parameters
        body = [*self.declared, *self.stack[0]]
        for code in self.included:
            body = [tirx.AttrStmt(const(0), "pragma_import_llvm", tvm.ir.StringImm(code), tirx.SeqStmt(body))]
        function = private(parameters, body)
        assert not (self.partitioned and self.alone), "all workers would write what is not partitioned"
        return function.with_attr(WORKERS, self.threads) if self.partitioned else function


def private(parameters: list[Var], body: list[Stmt]) -> Function:
    """A function that ``main`` can call directly. Allocations ask which device they are for."""
    whole = tirx.SeqStmt([*body, tirx.Return(tirx.IntImm("int32", 0))])
    for key, value in (("device_id", 0), ("device_type", 1)):
        whole = tirx.AttrStmt(const(0), key, tirx.IntImm("int32", value), whole)
    function = tirx.PrimFunc(parameters, whole, ret_type=tvm.ir.PrimType("int32"))
    return function.with_attr("tirx.noalias", True)


def _index(index: Expr) -> Expr:
    return const(index) if isinstance(index, int) else index


def segments(size: int, tile: int) -> list[tuple[int, int, int]]:
    """Cut an axis into (start, tiles, tile): whole tiles, then what is left as one narrower tile."""
    whole, rest = divmod(size, tile)
    cut = [(0, whole, tile)] if whole else []
    return [*cut, (whole * tile, 1, rest)] if rest else cut


def even_tile(size: int, most: int) -> int:
    """The tile for ``size`` that is at most ``most`` and leaves the narrowest last tile as full as can be."""
    return -(-size // -(-size // most))
