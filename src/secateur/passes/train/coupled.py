"""Channels that live and die together, in a module that trains: their norms, and what sets them to zero.

A filter at zero frees nothing where a sum ties it to other filters, or where a batch norm's shift revives it. The units
of the coupling are what can go; here they are groups of a penalty, and what soft pruning clears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.ir import Graph, InputError
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, Slot

from .group_lasso import check_method, shrink
from .hook import Hook, rates
from .weights import split

WRITES = ("out", "tied")  # what makes a channel: filters and biases, and what norms do to it


@dataclass(frozen=True, eq=False)
class Place:
    """An axis of a parameter of the module: a unit for each position, ``size`` where there is none."""

    weight: nn.Parameter
    axis: int
    groups: int
    units: Tensor

    def sums(self, values: Tensor) -> Tensor:
        """What belongs to each position of a tensor like the parameter, summed: as many numbers as there are units."""
        view, axes = self._view(values)
        return view.sum(dim=axes).flatten() if axes else view.flatten()

    def spread(self, factors: Tensor) -> Tensor:
        """One factor for each position, in a shape that the parameter is multiplied with."""
        view, axes = self._view(self.weight)
        shape = [1 if axis in axes else n for axis, n in enumerate(view.shape)]
        found = factors[self.units].view(shape)
        if self.groups > 1:
            found = found.expand(-1, view.shape[1], *(-1,) * (view.dim() - 2)).flatten(0, 1)
        return found

    def _view(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        if self.groups == 1:
            return values, tuple(axis for axis in range(values.dim()) if axis != self.axis)
        view = split(values, self.groups)
        return view, tuple(axis for axis in range(view.dim()) if axis not in (0, self.axis + 1))


class Units:
    """The units of a coupled graph, in the module that it was captured from (or that was made of it)."""

    def __init__(self, module: nn.Module, graph: Graph, paths: Mapping[str, str] | None = None) -> None:
        """``paths``: where the module calls a weight otherwise. Raises InputError where nothing matches."""
        coupled = graph if graph.note(Coupling) is not None else Couple()(graph)
        coupling = coupled.note(Coupling)
        assert coupling is not None
        self.graph, self.coupling, self.size = coupled, coupling, coupling.size
        self.paths = dict(paths or {})
        self.parameters = dict(module.named_parameters(remove_duplicate=False))
        self.places = [(slot, place) for slot in coupling.slots if (place := self._place(slot)) is not None]
        if not self.places:
            raise InputError(
                f"no weight of '{graph.name}' is a parameter of the module; give the module that it was captured from"
            )
        self.free = torch.from_numpy(~coupling.frozen.astype(bool))

    def _place(self, slot: Slot) -> Place | None:
        weight = self.parameters.get(self.paths.get(slot.weight, slot.weight))
        if weight is None or not weight.is_floating_point():
            return None
        units = np.where(slot.units < 0, self.size, slot.units)
        return Place(weight, slot.axis, slot.groups if slot.axis else 1, torch.from_numpy(units.astype(np.int64)))

    @torch.no_grad()
    def norms(self, roles: Sequence[str] = WRITES) -> Tensor:
        """f64[units]: the Euclidean norm of all weights of each unit that have one of these roles; zero without any."""
        total = torch.zeros(self.size + 1, dtype=torch.float64)
        for slot, place in self.places:
            if slot.role in roles:
                total.index_add_(0, place.units, place.sums(place.weight.double().square()))
        return total[: self.size].sqrt()

    @torch.no_grad()
    def scale(self, factors: Tensor, roles: Sequence[str] = WRITES) -> None:
        """Multiply the weights of each unit by its factor; frozen units are left alone."""
        full = torch.cat([torch.where(self.free, factors, 1.0), torch.ones(1, dtype=factors.dtype)])
        for slot, place in self.places:
            if slot.role in roles:
                place.weight.mul_(place.spread(full).to(place.weight.dtype))

    def with_weights(self) -> Graph:
        """The coupled graph with the weights that the module has now: what criteria score."""
        weights = dict(self.graph.weights)
        for name, old in weights.items():
            found = self.parameters.get(self.paths.get(name, name))
            if found is not None and tuple(found.shape) == old.shape:
                weights[name] = found.detach().cpu().numpy().astype(old.dtype)
        return self.graph.rewrite(weights=weights, keep=(Coupling,))

    def masks(self, keep: Tensor, roles: Sequence[str] = WRITES) -> dict[str, Tensor]:
        """Masks by parameter name (``Masks``) that hold the units at zero where ``keep``, bool[units], is False."""
        full = torch.cat([keep | ~self.free, torch.ones(1, dtype=torch.bool)])
        names = {id(p): n for n, p in self.parameters.items()}
        found: dict[str, Tensor] = {}
        for slot, place in self.places:
            if slot.role in roles:
                name, mask = names[id(place.weight)], place.spread(full).expand(place.weight.shape)
                found[name] = found[name] & mask if name in found else mask.clone()
        return found


class CoupledLasso(Hook):
    """Group lasso over the units of the coupling: ``strength`` times the sum of their norms, by proximal steps.

    A unit's group holds every filter, bias, scale and shift that makes its channel in any layer, so one at zero is a
    channel of zeros, which ``l1,zeros`` removes without changing the network. Filter-wise groups (``GroupLasso``) do
    not see that residual sums tie filters of several layers.
    """

    def __init__(self, units: Units, strength: float, roles: Sequence[str] = WRITES) -> None:
        """``roles``: "out" filters, "tied" norms' parameters, "in" the columns of the readers."""
        check_method("proximal", strength)
        self.units, self.strength, self.roles = units, strength, tuple(roles)

    @torch.no_grad()
    def after_step(self, optimiser: Optimizer) -> None:
        rate = max(rates(optimiser).values(), default=0.0)
        factors = torch.ones(self.units.size, dtype=torch.float64)
        shrink(factors, self.units.norms(self.roles), rate * self.strength)
        self.units.scale(factors, self.roles)

    def penalty(self) -> float:
        """What is added to the loss: for a report."""
        return self.strength * float(self.units.norms(self.roles).sum())
