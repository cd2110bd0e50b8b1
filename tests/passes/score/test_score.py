"""Criteria: against plain NumPy, and on what they must refuse."""

import numpy as np
import pytest

from secateur.ir import Graph, InputError, PassError
from secateur.passes import CRITERIA
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, Importance, Slot
from secateur.passes.score.slots import position_norms
from support.nets import chain, residual


def scores(graph: Graph, name: str, **options: object) -> np.ndarray:
    note = CRITERIA[name](**options)(Couple()(graph)).note(Importance)
    assert note is not None
    return note.scores


def units(graph: Graph, weight: str, axis: int = 0) -> np.ndarray:
    coupling = Couple()(graph).note(Coupling)
    assert coupling is not None
    (slot,) = [s for s in coupling.slots if s.weight == weight and s.axis == axis]
    return slot.units


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
def test_norms_are_relative_to_the_layer(name: str, power: int) -> None:
    graph = chain()
    norms = (np.abs(graph.weights["c2.w"]) ** power).sum(axis=(1, 2, 3)) ** (1 / power)
    found = scores(graph, name)[units(graph, "c2.w")]
    np.testing.assert_allclose(found, norms / norms.mean(), rtol=1e-5)


def test_tied_producers_are_averaged() -> None:
    graph = residual()
    each = [np.abs(graph.weights[w]).sum(axis=(1, 2, 3)) for w in ("a.w", "c.w")]
    want = np.mean([n / n.mean() for n in each], axis=0)
    np.testing.assert_allclose(scores(graph, "l1")[units(graph, "a.w")], want, rtol=1e-5)


def test_a_layer_of_large_weights_does_not_outweigh_another() -> None:
    graph = chain()
    grown = graph.rewrite(weights={**graph.weights, "c1.w": graph.weights["c1.w"] * 1000})
    np.testing.assert_allclose(scores(grown, "l1"), scores(graph, "l1"), rtol=1e-4)


def test_slimming_reads_scales_and_leaves_the_rest_unscored() -> None:
    graph = chain()
    found = scores(graph, "slimming")
    np.testing.assert_allclose(found[units(graph, "c1.w")], np.abs(graph.weights["n1.g"]), rtol=1e-6)
    assert np.isnan(found[units(graph, "c2.w")]).all()


def test_slimming_without_batch_norm_says_so() -> None:
    with pytest.raises(InputError, match=r"slimming.*BatchNorm.*'residual' has none.*use l1"):
        scores(residual(), "slimming")


def test_random_follows_its_seed() -> None:
    graph = chain()
    assert np.array_equal(scores(graph, "random", seed=3), scores(graph, "random", seed=3))
    assert not np.array_equal(scores(graph, "random", seed=3), scores(graph, "random", seed=4))


def test_nan_is_named() -> None:
    graph = chain()
    broken = graph.weights["c2.w"].copy()
    broken[4, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"'c2\.w'.*NaN.*position 4"):
        scores(graph.rewrite(weights={**graph.weights, "c2.w": broken}), "l1")


def test_without_coupling_the_missing_pass_is_named() -> None:
    with pytest.raises(PassError, match="put 'couple' before"):
        CRITERIA["l1"]()(chain())


def test_grouped_axis_counts_every_group_by_itself() -> None:
    weight = np.arange(8 * 2 * 1 * 1, dtype=np.float32).reshape(8, 2, 1, 1)
    slot = Slot("w", 1, np.arange(8), "in", "n", groups=4)
    found = position_norms(weight, slot, lambda rows: np.abs(rows).sum(axis=1))
    want = [weight[2 * g : 2 * g + 2, i].sum() for g in range(4) for i in range(2)]
    np.testing.assert_allclose(found, want)
