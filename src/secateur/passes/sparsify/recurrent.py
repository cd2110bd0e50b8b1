"""The normal equations of a recurrent layer's matrices: one multiplies what it reads, the other what it remembers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from secateur.ir import Array, InputError

from .fit import Quadratic
from .layers import Place
from .pattern import Mask, Pattern
from .prune import prune

if TYPE_CHECKING:
    from secateur.passes.compensate.lockstep import Step, Stepper

Pair = tuple[Array, Array | None]


@dataclass(frozen=True, eq=False)
class Recurrent:
    """What the sums that enter the gates lack, as a quadratic of one matrix, direction by direction.

    Of what is read: in the network that loses weights, and the sums are to be the original's. Of what is remembered:
    the states of the original, of which those of the other network are to become equal.
    """

    loss: Quadratic
    now: Array  # f64[directions, gates and units, columns]
    weight: Array
    bias: None = None

    @staticmethod
    def of(step: Step, place: Place, columns: Array | None, ridge: float) -> Recurrent:
        """Over all batches of a step; ``columns``: the original's units that are left, None for all."""
        weight = step.slim.weights[place.weight]
        now = weight.astype(np.float64)
        second, product = np.zeros((len(now), now.shape[2], now.shape[2])), np.zeros(now.shape)
        count = 0
        pairs = _read(step, place, now) if place.weight == place.node.inputs[1] else _states(step, place, columns)
        for u, gap in pairs:
            second += u.transpose(0, 2, 1) @ u
            product += 0 if gap is None else gap.transpose(0, 2, 1) @ u
            count += u.shape[1]
        second, product = second / max(count, 1), product / max(count, 1)
        scale = np.einsum("gcc->g", second) / now.shape[2]
        damped = second + np.eye(now.shape[2]) * np.maximum(max(ridge, 1e-9) * scale, 1e-12)[:, None, None]
        return Recurrent(Quadratic(damped, product + now @ damped), now, weight)

    def pruned(self, pattern: Pattern, sparsity: float, rounds: int) -> tuple[Array, Array, Mask]:
        """(weight, no bias, which weights stay [directions, gates and units; columns])."""
        solved, kept = prune(self.loss, self.now, pattern, sparsity, rounds)
        return solved.astype(self.weight.dtype), self.weight[:0], kept.reshape(-1, kept.shape[-1])


def _read(step: Step, place: Place, now: Array) -> Iterator[Pair]:
    """Batch by batch: what flows in [directions, steps and samples, inputs], and what the sums lack."""
    name, whole = place.node.inputs[0] or "", step.dense.weights.get(place.weight)
    for dense, slim in zip(_values(step.dense, place, name), _values(step.slim, place, name), strict=True):
        x, y = (v.reshape(-1, v.shape[-1]) for v in (slim, dense))
        gap: Array | None = None  # after a cut, which the layer cannot make up for, its own sums are what counts
        if whole is not None and whole.shape == now.shape and x.shape == y.shape:
            gap = y @ whole.astype(np.float64).transpose(0, 2, 1) - x @ now.transpose(0, 2, 1)
        yield np.broadcast_to(x, (len(now), *x.shape)), gap


def _states(step: Step, place: Place, columns: Array | None) -> Iterator[Pair]:
    """Batch by batch: the state before each step but the first, [directions, steps and samples, units]."""
    backward = place.node.attrs["direction"] == "reverse"
    for y in _values(step.dense, place, place.node.name):
        kept = y if columns is None else y[..., columns]
        ways = [kept[1:, d] if backward or d else kept[:-1, d] for d in range(kept.shape[1])]
        yield np.stack([way.reshape(-1, way.shape[-1]) for way in ways]), None


def _values(network: Stepper, place: Place, name: str) -> Iterator[Array]:
    """A value, batch by batch, f64. Raises InputError where one holds NaN or infinity."""
    for number, values in enumerate(network.values):
        found = values[name].double().numpy()
        if not np.isfinite(found).all():
            raise InputError(
                f"calibration, batch {number}: what flows through '{place.node.name}' holds NaN or infinity; check how "
                "the inputs are scaled, and the weights"
            )
        yield found
