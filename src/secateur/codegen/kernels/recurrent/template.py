"""LSTM and GRU: step by step, a vector of hidden units at a time; what the input adds was computed before.

The gates of a unit lie in the same lane of blocks that follow each other, gate by gate; recurrent weights are
[hidden, gate, block, lane], so a step is one pass over them for every element of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from secateur.codegen.emit.builder import INT, KernelBuilder, const, segments
from secateur.codegen.emit.maths import sigmoid, tanh
from secateur.codegen.emit.types import Buffer, Expr, Function
from secateur.codegen.kernels.row_sparse.products import RowProducts, Shape
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .packing import PAIR
from .spec import RecurrentSpec


def build(spec: RecurrentSpec, choice: None, target: Target) -> Function:
    """The kernel ``(gates, r, bias, first h, y, last h, .., scratch)``; for an LSTM first and last c follow last h.

    If ``sparse``, tables follow ``r``: where in the state the unit of each kept block is, and ``starts``; or those of
    ``RowProducts``.
    """
    return _Recurrent(spec, target).build()


class _Recurrent:
    def __init__(self, spec: RecurrentSpec, target: Target) -> None:
        self.spec = spec
        self.k = k = KernelBuilder(spec.lanes)
        self.width = spec.blocks * spec.lanes
        self.gates = k.pointer("gates")
        if spec.sparse == "rows":
            count = (4 if spec.kind == "lstm" else 3) * spec.blocks
            shape = Shape(count, spec.hidden, spec.state.block, spec.powers)
            self.rows = RowProducts(k, shape, target.permute)
        else:
            self.r = k.pointer("r")
        if spec.sparse == "blocks":
            self.units, self.starts = k.pointer("units", "int32"), k.pointer("starts", "int32")
        self.bias, self.h0 = k.pointer("bias"), k.pointer("h0")
        self.y, self.h = k.pointer("y"), k.pointer("h")
        self.c0: Buffer | None = k.pointer("c0") if spec.kind == "lstm" else None
        self.c: Buffer | None = k.pointer("c") if spec.kind == "lstm" else None
        self.scratch = k.pointer("scratch")

    def build(self) -> Function:
        k, spec = self.k, self.spec

        def begin(b: Expr, j: Expr) -> None:
            k.store(self.h, self.state(b, j), k.load(self.h0, b * spec.first.column + j * spec.first.block))
            if self.c is not None:
                k.store(self.c, self.state(b, j), k.load(self.c0, b * spec.first.column + j * spec.first.block))

        self.each(begin)

        def step(i: Expr) -> None:
            t = spec.steps - 1 - i if spec.reverse else i

            def element(b: Expr) -> None:
                if spec.sparse == "rows":
                    state = k.bind(b * spec.state.column, INT)
                    self.rows.multiply(self.h, self.scratch, lambda one: one(state, const(0)))
                (self.lstm if spec.kind == "lstm" else self.gru)(t, b)

            k.loop(spec.batch, element, name="b")
            self.each(lambda b, j: k.store(self.h, self.state(b, j), k.load(self.y, self.out(t, b, j))))

        k.loop(spec.steps, step, name="t")
        return k.finish()

    def each(self, body: Callable[[Expr, Expr], None]) -> None:
        """``body(element of the batch, block)``."""
        k, spec = self.k, self.spec
        k.loop(spec.batch, lambda b: k.loop(spec.blocks, lambda j: body(b, j), name="j"), name="b")

    def state(self, b: Expr, j: Expr) -> Expr:
        """Where the state of a block of units is."""
        return b * self.spec.state.column + j * self.spec.state.block

    def unit(self, b: Expr, i: Expr) -> Expr:
        """Where the state of a unit is."""
        lanes = self.spec.lanes
        return self.state(b, i // lanes) + i % lanes

    def out(self, t: Expr, b: Expr, j: Expr) -> Expr:
        """Where a block of a step's result goes."""
        y = self.spec.y
        return t * y.image + b * y.column + j * y.block

    def from_input(self, t: Expr, b: Expr, gate: int, j: Expr) -> Expr:
        """What the input adds to a gate."""
        x, spec = self.spec.gates, self.spec
        return self.k.load(self.gates, t * x.image + b * x.column + (gate * spec.blocks + j) * x.block)

    def products(
        self, sums: list[list[Buffer]], gates: list[int], first: Expr, vector: Expr, at: Callable[[Expr], Expr]
    ) -> None:
        """Add the recurrent weights of some gates times a vector: ``sums[gate][block]``, from block ``first`` on."""
        k, spec = self.k, self.spec
        count = (4 if spec.kind == "lstm" else 3) * self.width

        def one(i: Expr) -> None:
            wide = k.vector(k.splat(k.scalar(vector, at(i))))
            for gate, row in zip(gates, sums, strict=True):
                for j, total in enumerate(row):
                    k.add(total, wide * k.load(self.r, i * count + gate * self.width + (first + j) * spec.lanes))

        k.loop(spec.hidden, one, name="k")

    def kept_products(self, sums: list[list[Buffer]], first: Expr, b: Expr) -> None:
        """The same of all gates and the state, with kept blocks alone."""
        k, spec, flat = self.k, self.spec, [total for row in sums for total in row]
        pair, each = k.bind(first // PAIR, INT), len(flat)
        begin, end = (k.bind(k.scalar(self.starts, pair + i).astype(INT), INT) for i in (0, 1))
        start = k.bind(begin * (len(sums) * PAIR), INT)  # all pairs before are whole
        state = k.bind(b * spec.state.column, INT)

        def one(i: Expr) -> None:
            place = k.bind(start + (i - begin) * each, INT)
            for n, total in enumerate(flat):
                unit = k.scalar(self.units, place + n).astype(INT)
                wide = k.vector(k.splat(k.scalar(self.h, state + unit)))
                k.add(total, wide * k.load(self.r, (place + n) * spec.lanes))

        k.span(begin, end, one, name="kept")

    def of_state(self, sums: list[list[Buffer]], first: Expr, b: Expr) -> None:
        """Add what all gates have of the state."""
        if self.spec.sparse == "rows":
            for gate, row in enumerate(sums):
                for j, total in enumerate(row):
                    at = gate * self.spec.blocks + first + j
                    self.k.add(total, self.rows.product(self.scratch, const(0), at))
        elif self.spec.sparse == "blocks":
            self.kept_products(sums, first, b)
        else:
            self.products(sums, list(range(len(sums))), first, self.h, lambda i: self.unit(b, i))

    def begins(self, t: Expr, b: Expr, gate: int, first: Expr, nb: int) -> list[Buffer]:
        """Sums that begin with what the input adds."""
        k = self.k
        return [k.accumulators(1, self.from_input(t, b, gate, first + j))[0] for j in range(nb)]

    def pairs(self, body: Callable[[Expr, int], None]) -> None:
        """``body(first block, blocks)``."""
        for start, count, nb in segments(self.spec.blocks, min(PAIR, self.spec.blocks)):
            self.k.loop(count, lambda i, start=start, nb=nb: body(start + i * nb, nb), name="jb")  # type: ignore[misc]

    def lstm(self, t: Expr, b: Expr) -> None:
        """Gates i, o, f, g: c = f c + i g, h = o tanh(c)."""
        k = self.k

        def some(first: Expr, nb: int) -> None:
            sums = [self.begins(t, b, gate, first, nb) for gate in range(4)]
            self.of_state(sums, first, b)
            for j in range(nb):
                i, o, f = (k.vector(sigmoid(k, k.get(sums[gate][j]))) for gate in range(3))
                g = k.vector(tanh(k, k.get(sums[3][j])))
                c = k.vector(f * k.load(self.c, self.state(b, first + j)) + i * g)
                k.store(self.c, self.state(b, first + j), c)
                k.store(self.y, self.out(t, b, first + j), o * tanh(k, c))

        self.pairs(some)

    def gru(self, t: Expr, b: Expr) -> None:
        """Gates z, r, n: h = (1 - z) n + z h, where r scales h before or after the recurrent weights of n."""
        k, spec = self.k, self.spec

        def write(first: Expr, j: int, z: Expr, n: Expr) -> None:
            h = k.load(self.h, self.state(b, first + j))
            k.store(self.y, self.out(t, b, first + j), (k.splat(1.0) - z) * n + z * h)

        def after(first: Expr, nb: int) -> None:
            sums = [self.begins(t, b, gate, first, nb) for gate in (0, 1)]
            sums.append([k.accumulators(1, k.load(self.bias, (first + j) * spec.lanes))[0] for j in range(nb)])
            self.of_state(sums, first, b)
            for j in range(nb):
                z, r = (k.vector(sigmoid(k, k.get(sums[gate][j]))) for gate in range(2))
                write(first, j, z, k.vector(tanh(k, self.from_input(t, b, 2, first + j) + r * k.get(sums[2][j]))))

        def gates(first: Expr, nb: int) -> None:
            sums = [self.begins(t, b, gate, first, nb) for gate in (0, 1)]
            self.products(sums, [0, 1], first, self.h, lambda i: self.unit(b, i))
            for j in range(nb):
                z, r = (k.vector(sigmoid(k, k.get(sums[gate][j]))) for gate in range(2))
                k.store(self.scratch, (first + j) * spec.lanes, r * k.load(self.h, self.state(b, first + j)))
                k.store(self.scratch, self.width + (first + j) * spec.lanes, z)

        def before(first: Expr, nb: int) -> None:
            sums = [self.begins(t, b, 2, first, nb)]
            self.products(sums, [2], first, self.scratch, lambda i: i)
            for j in range(nb):
                z = k.load(self.scratch, self.width + (first + j) * spec.lanes)
                write(first, j, z, k.vector(tanh(k, k.get(sums[0][j]))))

        if spec.reset_after:
            self.pairs(after)
        else:
            self.pairs(gates)
            self.pairs(before)


TEMPLATES: Mapping[type, Template] = {RecurrentSpec: Template(build)}
