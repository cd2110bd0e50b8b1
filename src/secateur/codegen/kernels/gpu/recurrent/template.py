"""LSTM and GRU on planes: one group for each element of the batch goes through all steps by itself.

The state lies in shared memory, and of a unit the cell and the sums of all gates in the registers of a work item.
Neighbouring work items have neighbouring units and read neighbouring weights, [hidden, gate, unit]. What the input adds
to the gates was computed before, by a linear layer over all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from secateur.codegen.emit.gpu.builder import GpuBuilder
from secateur.codegen.emit.gpu.maths import ONE, sigmoid, tanh
from secateur.codegen.emit.types import Buffer, Expr, Function
from secateur.codegen.kernels.recurrent.plan import GATES
from secateur.codegen.kernels.recurrent.spec import RecurrentSpec
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .plan import ITEMS


def build(spec: RecurrentSpec, choice: None, target: Target) -> Function:
    """The kernel ``(gates, r, bias, first h, y, last h, [first c, last c])``."""
    return _Steps(spec).build()


class _Steps:
    def __init__(self, spec: RecurrentSpec) -> None:
        self.spec, self.count = spec, GATES[spec.kind]
        items = min(ITEMS, -(-spec.hidden // 32) * 32)
        self.k = k = GpuBuilder((spec.batch,), items)
        self.gates, self.r, self.bias = k.pointer("gates"), k.pointer("r"), k.pointer("bias")
        self.first, self.y, self.last = k.pointer("h0"), k.pointer("y"), k.pointer("h")
        lstm = spec.kind == "lstm"
        self.cells = (k.pointer("c0"), k.pointer("c")) if lstm else None
        self.units = -(-spec.hidden // items)
        self.cell = k.local(self.units, 0.0) if lstm else None
        self.state = k.shared(spec.hidden)
        self.reset = k.shared(spec.hidden) if not lstm and not spec.reset_after else None  # the state that a gate left
        self.new = k.local(self.units)

    def build(self) -> Function:
        k, spec = self.k, self.spec

        def begin(i: int, unit: Expr) -> None:
            at = k.group[0] * spec.first.column + unit * spec.first.block
            k.store(self.state, unit, k.load(self.first, at))
            if self.cells is not None:
                k.store(self.cell, i, k.load(self.cells[0], at))

        def end(i: int, unit: Expr) -> None:
            at = k.group[0] * spec.state.column + unit * spec.state.block
            k.store(self.last, at, k.load(self.state, unit))
            if self.cells is not None:
                k.store(self.cells[1], at, k.load(self.cell, i))

        self.mine(begin)
        k.barrier()
        k.loop(spec.steps, self.step, "s")
        self.mine(end)
        return k.finish()

    def mine(self, body: Callable[[int, Expr], None]) -> None:
        """``body(which of its units, unit)`` for all units of a work item."""
        k, hidden = self.k, self.spec.hidden
        for i in range(self.units):
            unit = k.bind(k.item + i * k.items)
            k.branch(unit < hidden if (i + 1) * k.items > hidden else None, partial(body, i, unit))

    def step(self, s: Expr) -> None:
        """One step: everybody has read the state before it changes, and it has changed before it is read again."""
        k, spec = self.k, self.spec
        t = k.bind(spec.steps - 1 - s if spec.reverse else s)
        (self.lstm if spec.kind == "lstm" else self.gru)(t)
        k.barrier()

        def write(i: int, unit: Expr) -> None:
            k.store(self.state, unit, k.load(self.new, i))
            place = t * spec.y.image + k.group[0] * spec.y.column + unit * spec.y.block
            k.store(self.y, place, k.load(self.new, i))

        self.mine(write)
        k.barrier()

    def from_input(self, t: Expr, gate: int, unit: Expr) -> Expr:
        """What the input adds to a gate."""
        x, batch = self.spec.gates, self.k.group[0]
        return self.k.load(self.gates, t * x.image + batch * x.column + (gate * self.spec.hidden + unit) * x.block)

    def sums(self, t: Expr, gates: range, state: Buffer) -> Buffer:
        """Of each unit of a work item and each gate: what the input adds, and weights times the state."""
        k, spec, wide = self.k, self.spec, len(gates)
        total = k.local(self.units * wide)

        def begin(i: int, unit: Expr) -> None:
            for n, gate in enumerate(gates):
                apart = spec.reset_after and gate == 2
                k.store(total, i * wide + n, k.load(self.bias, unit) if apart else self.from_input(t, gate, unit))

        def product(h: Expr) -> None:
            value = k.held(k.load(state, h))

            def add(i: int, unit: Expr) -> None:
                for n, gate in enumerate(gates):
                    place = (h * self.count + gate) * spec.hidden + unit
                    k.add(total, i * wide + n, value * k.load(self.r, place))

            self.mine(add)

        self.mine(begin)
        k.loop(spec.hidden, product, "h")
        return total

    def lstm(self, t: Expr) -> None:
        """Gates i, o, f, g: c = f c + i g, h = o tanh(c)."""
        k = self.k
        total = self.sums(t, range(4), self.state)

        def unit(u: int, _: Expr) -> None:
            i, o, f = (k.held(sigmoid(k.load(total, u * 4 + gate))) for gate in range(3))
            g = k.held(tanh(k, k.load(total, u * 4 + 3)))
            k.store(self.cell, u, f * k.load(self.cell, u) + i * g)
            k.store(self.new, u, o * tanh(k, k.load(self.cell, u)))

        self.mine(unit)

    def gru(self, t: Expr) -> None:
        """Gates z, r, n: h = (1 - z) n + z h, where r scales h before or after the recurrent weights of n."""
        k, reset = self.k, self.reset
        wide = 3 if reset is None else 2
        total = self.sums(t, range(wide), self.state)

        def gate(u: int, number: int) -> Expr:
            return k.held(sigmoid(k.load(total, u * wide + number)))

        def scale(u: int, at: Expr) -> None:
            k.store(reset, at, gate(u, 1) * k.load(self.state, at))

        if reset is not None:
            self.mine(scale)
            k.barrier()
            rest = self.sums(t, range(2, 3), reset)

        def unit(u: int, at: Expr) -> None:
            if reset is None:
                inner = self.from_input(t, 2, at) + gate(u, 1) * k.load(total, u * wide + 2)
            else:
                inner = k.load(rest, u)
            z, n = gate(u, 0), k.held(tanh(k, k.held(inner)))
            k.store(self.new, u, (ONE - z) * n + z * k.load(self.state, at))

        self.mine(unit)


TEMPLATES: Mapping[type, Template] = MappingProxyType({RecurrentSpec: Template(build)})
