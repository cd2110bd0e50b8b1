"""Products of weights of which zeros are left out row by row: each row in a lane of its own.

Rows are in another order than results, so all products go to scratch memory, and from there to where they belong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from secateur.codegen.emit.builder import INT, KernelBuilder, const
from secateur.codegen.emit.permute import pick, shifted
from secateur.codegen.emit.types import Buffer, Expr

from .powers import Power

Over = Callable[[Callable[[Expr, Expr], None]], None]  # calls with the starts of inputs, and of products, in floats


@dataclass(frozen=True)
class Shape:
    """``vectors`` of rows, some by ``powers``, times ``columns`` inputs, which lie in blocks ``block`` floats apart.

    ``sums`` of a vector of rows are under way at once, which hides the latency of an addition.
    """

    vectors: int
    columns: int
    block: int
    powers: tuple[int, ...]
    sums: int = 4


class RowProducts:
    """Of a kernel: the parameters are what ``plan.row_arguments`` gives; ``permute`` is the target's."""

    def __init__(self, k: KernelBuilder, shape: Shape, permute: str) -> None:
        self.k, self.shape, self.permute = k, shape, permute
        self.weight, self.unit = k.pointer("r"), k.pointer("units", "int32")
        self.starts, self.place = k.pointer("starts", "int32"), k.pointer("place", "int32")
        self.own, self.words = k.pointer("own"), k.pointer("words", "int32")
        self.edges = k.pointer("edges", "int32")

    def multiply(self, x: Buffer, scratch: Buffer, over: Over) -> None:
        """All rows by inputs in ``x``, into the scratch memory: each vector of rows by all inputs of ``over``."""
        k, shape, v = self.k, self.shape, self.k.lanes
        first: Expr = const(0)
        weights, words = const(0), const(0)  # where those of a power begin
        for number, power in enumerate(shape.powers):
            how = Power(power, v, shape.columns)
            end = self.number(self.edges, const(number + 1))
            self.of_power(how, (first, end), (weights, words), (x, scratch, over))
            weights = k.bind(weights + (end - first) * (how.vectors * v), INT)
            words = k.bind(words + (end - first) * (how.words * v), INT)
            first = end

        def some(group: Expr) -> None:
            begin, end = (self.number(self.starts, group - first + i) for i in (0, 1))

            def inputs(start: Expr, to: Expr) -> None:
                total = k.accumulators(1, k.splat(0.0))[0]

                def one(i: Expr) -> None:
                    units = [self.number(self.unit, i * v + lane) for lane in range(v)]
                    k.add(total, k.gather(x, [start + unit for unit in units]) * k.load(self.weight, i * v))

                k.span(begin, end, one, name="kept")
                k.store(scratch, to + group * v, k.get(total))

            over(inputs)

        k.span(first, const(shape.vectors), some, name="rows")

    def of_power(
        self, how: Power, groups: tuple[Expr, Expr], at: tuple[Expr, Expr], places: tuple[Buffer, Buffer, Over]
    ) -> None:
        """Vectors of rows of a power: of a word of places, as many vectors of weights as it numbers a round."""
        k, v, (x, scratch, over) = self.k, self.k.lanes, places
        whole, rest = divmod(how.vectors, how.each)

        def some(group: Expr) -> None:
            weights = k.bind(at[0] + (group - groups[0]) * (how.vectors * v), INT)
            words = k.bind(at[1] + (group - groups[0]) * (how.words * v), INT)

            def inputs(start: Expr, to: Expr) -> None:
                sums = k.accumulators(min(self.shape.sums, how.vectors), k.splat(0.0))

                def one(i: Expr, count: int) -> None:
                    word = k.bind(k.load(self.words, words + i * v)) if how.bits else None
                    for j in range(count):
                        factor = self.inputs(how, x, start, i, j, word)
                        k.add(sums[j % len(sums)], factor * k.load(self.own, weights + (i * how.each + j) * v))

                k.loop(whole, lambda i: one(i, how.each), name="word")
                if rest:
                    one(const(whole), rest)
                total = k.get(sums[0])
                for one_more in sums[1:]:
                    total = total + k.get(one_more)
                k.store(scratch, to + group * v, total)

            over(inputs)

        k.span(*groups, some, name="rows")

    def inputs(self, how: Power, x: Buffer, start: Expr, i: Expr, j: int, word: Expr | None) -> Expr:
        """What vector j of the weights of round i meets."""
        k, v, block = self.k, self.k.lanes, self.shape.block
        if word is None:
            unit = i * how.each + j
            return k.vector(k.splat(k.scalar(x, start + unit // v * block + unit % v)))
        first = i * ((how.each << how.power) // v) + (j << how.power) // (how.wide * v) * how.wide
        last = const(-(-how.columns // v) - 1)  # the last inputs may be fewer vectors than a weight can meet
        vectors = [k.load(x, start + tirx.min(first + n, last) * block) for n in range(how.wide)]
        return pick(k, self.permute, vectors, shifted(k, word, how.bits * j))

    def product(self, scratch: Buffer, to: Expr, vector: Expr) -> Expr:
        """What ``multiply`` found for a vector of the rows in their own order, each from where it is."""
        k, v = self.k, self.k.lanes
        at = k.bind(vector * v, INT)
        return k.gather(scratch, [to + self.number(self.place, at + i) for i in range(v)])

    def number(self, table: Buffer, at: Expr) -> Expr:
        """One entry of a table."""
        return self.k.bind(self.k.scalar(table, at).astype(INT), INT)
