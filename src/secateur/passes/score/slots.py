"""From numbers per weight position to one number per unit: shared by the criteria that read weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from secateur.ir import Array, Graph, InputError, PassError
from secateur.ir.quantised import real_values
from secateur.passes.notes import Coupling, Slot
from secateur.passes.sweep.needs import Statistics

FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})
Norm = Callable[[Array], Array]  # f32[rows, columns] -> f64[rows]


def coupling_of(graph: Graph, criterion: str) -> Coupling:
    """The coupling note. Raises PassError where ``couple`` did not run."""
    found = graph.note(Coupling)
    if found is None:
        raise PassError(f"'{criterion}' needs to know which channels belong together: put 'couple' before it")
    return found


def statistics_of(graph: Graph, criterion: str) -> Statistics:
    """What the sweep found. Raises PassError where none was made."""
    found = graph.note(Statistics)
    if found is None:
        raise PassError(f"'{criterion}' needs statistics of calibration data: put 'gather' before it, with data")
    return found


def position_rows(weight: Array, slot: Slot) -> Array:
    """[len(slot.units), ..]: everything in the weight that belongs to each position of the axis, one row each.

    With ``groups`` > 1 the positions of all groups follow each other and axis 0 is split among them.
    """
    array = weight.astype(np.float32) if weight.dtype.itemsize < 4 or weight.dtype.name == "bfloat16" else weight
    if slot.groups > 1 and slot.axis > 0:
        array = array.reshape(slot.groups, array.shape[0] // slot.groups, *array.shape[1:])
        array = np.moveaxis(array, slot.axis + 1, 1)
        rows = array.shape[0] * array.shape[1]
    else:
        array = np.moveaxis(array, slot.axis, 0)
        rows = array.shape[0]
    return array.reshape(rows, -1)


def position_norms(weight: Array, slot: Slot, norm: Norm) -> Array:
    """f64[len(slot.units)]: the norm of each of ``position_rows``."""
    return norm(position_rows(weight, slot)).astype(np.float64)


def mean_over_slots(graph: Graph, slots: Iterable[Slot], size: int, norm: Norm, *, normalise: bool) -> Array:
    """f64[size]: each unit's mean over the positions where it stands in ``slots``; NaN where it stands in none.

    ``normalise`` divides the numbers of a slot by their mean first, so that a layer of large weights does
    not outweigh one of small weights: only then can layers be compared with each other.
    Raises InputError for a weight that holds NaN.
    """
    total = np.zeros(size)
    count = np.zeros(size)
    done: dict[tuple[str, int, int], Array] = {}
    for slot in slots:
        weight = graph.weights[slot.weight]
        if weight.dtype.name not in FLOATS:
            if weight.dtype.itemsize > 1 or weight.ndim < 2:  # not a quantised layer's
                continue
            weight = real_values(graph, slot.weight)
        key = (slot.weight, slot.axis, slot.groups)
        if key not in done:
            done[key] = _finite(position_norms(weight, slot, norm), slot)
        norms = done[key]
        live = slot.units >= 0
        if not live.any():
            continue
        mean = norms.mean() if normalise else 1.0
        units = slot.units[live]
        np.add.at(total, units, norms[live] / (mean or 1.0))
        np.add.at(count, units, 1.0)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def _finite(norms: Array, slot: Slot) -> Array:
    if np.isnan(norms).any():
        row = int(np.isnan(norms).argmax())
        raise InputError(
            f"weight '{slot.weight}' of '{slot.node}' holds NaN (axis {slot.axis}, position {row}), so its channels "
            "cannot be compared; repair or retrain the model"
        )
    return norms


def weight_scores(graph: Graph, criterion: str, norm: Norm, units: Array | None = None) -> Array:
    """f64[units]: the mean, normalised norm of the producers' rows of each unit.

    Units that no producer's row stands for take the parameters tied to them, and then the consumers'
    columns. What is in no weight at all stays NaN: it is never removed. ``units``: those that are asked for (all).
    """
    coupling = coupling_of(graph, criterion)
    scores = np.full(coupling.size, np.nan)
    asked = np.ones(coupling.size, bool)
    if units is not None:
        asked[:] = False
        asked[units] = True
    for roles, least in ((("out",), 2), (("tied",), 2), (("in",), 2), (("out", "tied"), 1)):
        missing = np.isnan(scores) & asked
        if not missing.any():
            break
        slots = [s for s in coupling.slots if s.role in roles and _rank(graph, s) >= least and _touches(s, missing)]
        found = mean_over_slots(graph, slots, coupling.size, norm, normalise=True)
        scores = np.where(missing, found, scores)
    return scores


def without_columns(weight: Array, slot: Slot, gone: Array) -> Array:
    """The weight with the columns of the units in ``gone`` (bool[units]) at zero, along the slot's axis."""
    dead = np.where(slot.units < 0, False, gone[slot.units])
    result = weight.copy()
    if slot.groups == 1:
        np.moveaxis(result, slot.axis, 0)[dead] = 0
        return result
    rows = weight.shape[0] // slot.groups
    for group, columns in enumerate(dead.reshape(slot.groups, -1)):
        result[group * rows : (group + 1) * rows, columns] = 0
    return result


def _rank(graph: Graph, slot: Slot) -> int:
    return graph.weights[slot.weight].ndim


def _touches(slot: Slot, missing: Array) -> bool:
    return bool(((slot.units >= 0) & missing[slot.units]).any())
