"""No sample of a batch changes what becomes of the others, whatever it holds: every family of kernels."""

from __future__ import annotations

import pytest

from bench.speed.batch import BAD, FAMILIES, built, captured, changed, specs
from secateur.codegen.kernels import families
from secateur.codegen.kernels.templates import templates

BATCHES = (2, 3, 5, 16)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_sample_changes_others(name: str) -> None:
    family, number = FAMILIES[name], list(FAMILIES).index(name)
    batch, threads = BATCHES[number % len(BATCHES)], 1 + number % 2
    graph = captured(family, batch)
    assert set(family.specs) <= specs(graph, family, threads), "the network must be computed by the kernels it is about"
    library = built(graph, family, threads)
    assert {kind: changed(library, family, batch, bad) for kind, bad in BAD.items()} == dict.fromkeys(BAD, 0)


def test_rows_are_never_summed_with_each_other() -> None:
    """Strassen's sums are of pixels of one image: rows of a linear layer are samples, at a batch of one too."""
    for name in ("linear", "linear of rows", "product with a constant", "lstm"):
        for batch in (1, 64):
            assert "StrassenSpec" not in specs(captured(FAMILIES[name], batch), FAMILIES[name])


def test_every_kernel_is_among_the_families() -> None:
    found = {spec for family in FAMILIES.values() for spec in family.specs}
    every = {kind.__name__ for kind in templates(families.FAMILIES)}
    # Copies, moves and halos are part of nearly every network; groups' scales come with their moments.
    assert every - found <= {"CopySpec", "MoveSpec", "FillSpec", "MapSpec", "GroupNormSpec"}
