"""Products of recurrent weights of which zeros are left out row by row: each row in a lane of its own.

Rows are in another order than units, so all products of a step go to scratch memory, and from there to their gates.
"""

from __future__ import annotations

from tvm import tirx

from secateur.codegen.emit.builder import INT, KernelBuilder, const
from secateur.codegen.emit.permute import pick, shifted
from secateur.codegen.emit.types import Buffer, Expr
from secateur.codegen.targets import Target

from .powers import Power
from .spec import RecurrentSpec

SUMS = 4  # of a vector of rows: enough to hide the latency of an addition


class RowProducts:
    """Of a kernel: the parameters are what ``packing.Rows`` holds, ``powers`` last and where there are any."""

    def __init__(self, k: KernelBuilder, spec: RecurrentSpec, target: Target) -> None:
        self.k, self.spec, self.permute = k, spec, target.permute
        self.weight, self.unit = k.pointer("r"), k.pointer("units", "int32")
        self.starts, self.place = k.pointer("starts", "int32"), k.pointer("place", "int32")
        if spec.powers:
            self.own, self.words = k.pointer("own"), k.pointer("words", "int32")
            self.edges = k.pointer("edges", "int32")

    def multiply(self, h: Buffer, state: Expr, scratch: Buffer) -> None:
        """All rows by the state that begins at ``state``, into the scratch memory."""
        k, spec, v = self.k, self.spec, self.spec.lanes
        count = (4 if spec.kind == "lstm" else 3) * spec.blocks
        first: Expr = const(0)
        weights, words = const(0), const(0)  # where those of a power begin
        for number, power in enumerate(spec.powers):
            how = Power(power, v, spec.hidden)
            end = self.number(self.edges, const(number + 1))
            self.of_power(how, (first, end), (weights, words), (h, state, scratch))
            weights = k.bind(weights + (end - first) * (how.vectors * v), INT)
            words = k.bind(words + (end - first) * (how.words * v), INT)
            first = end

        def some(group: Expr) -> None:
            begin, end = (self.number(self.starts, group - first + i) for i in (0, 1))
            total = k.accumulators(1, k.splat(0.0))[0]

            def one(i: Expr) -> None:
                units = [self.number(self.unit, i * v + lane) for lane in range(v)]
                k.add(total, k.gather(h, [state + unit for unit in units]) * k.load(self.weight, i * v))

            k.span(begin, end, one, name="kept")
            k.store(scratch, group * v, k.get(total))

        k.span(first, const(count), some, name="rows")

    def of_power(
        self, how: Power, groups: tuple[Expr, Expr], at: tuple[Expr, Expr], places: tuple[Buffer, Expr, Buffer]
    ) -> None:
        """Vectors of rows of a power: of a word of places, as many vectors of weights as it numbers a round."""
        k, v, (h, state, scratch) = self.k, self.spec.lanes, places
        whole, rest = divmod(how.vectors, how.each)

        def some(group: Expr) -> None:
            sums = k.accumulators(min(SUMS, how.vectors), k.splat(0.0))
            weights = k.bind(at[0] + (group - groups[0]) * (how.vectors * v), INT)
            words = k.bind(at[1] + (group - groups[0]) * (how.words * v), INT)

            def one(i: Expr, count: int) -> None:
                word = k.bind(k.load(self.words, words + i * v)) if how.bits else None
                for j in range(count):
                    x = self.inputs(how, h, state, i, j, word)
                    k.add(sums[j % len(sums)], x * k.load(self.own, weights + (i * how.each + j) * v))

            k.loop(whole, lambda i: one(i, how.each), name="word")
            if rest:
                one(const(whole), rest)
            total = k.get(sums[0])
            for one_more in sums[1:]:
                total = total + k.get(one_more)
            k.store(scratch, group * v, total)

        k.span(*groups, some, name="rows")

    def inputs(self, how: Power, h: Buffer, state: Expr, i: Expr, j: int, word: Expr | None) -> Expr:
        """The hidden units that vector j of the weights of round i meets."""
        k, v, block = self.k, self.spec.lanes, self.spec.state.block
        if word is None:
            unit = i * how.each + j
            return k.vector(k.splat(k.scalar(h, state + unit // v * block + unit % v)))
        first = i * ((how.each << how.power) // v) + (j << how.power) // (how.wide * v) * how.wide
        last = const(self.spec.blocks - 1)  # the last units may be fewer vectors than a weight can meet
        vectors = [k.load(h, state + tirx.min(first + n, last) * block) for n in range(how.wide)]
        return pick(k, self.permute, vectors, shifted(k, word, how.bits * j))

    def add(self, sums: list[list[Buffer]], first: Expr, scratch: Buffer) -> None:
        """Add what ``multiply`` found to the sums of each gate, each row from where it is."""
        k, spec, v = self.k, self.spec, self.spec.lanes
        for gate, row in enumerate(sums):
            for j, total in enumerate(row):
                at = k.bind((gate * spec.blocks + first + j) * v, INT)
                k.add(total, k.gather(scratch, [self.number(self.place, at + i) for i in range(v)]))

    def number(self, table: Buffer, at: Expr) -> Expr:
        """One entry of a table."""
        return self.k.bind(self.k.scalar(table, at).astype(INT), INT)
