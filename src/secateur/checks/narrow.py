"""Libraries that multiply in bfloat16, TF32 or FP16: how far that moves outputs, and layers that are too coarse for it.

A library is judged by its kernels on this machine, or where it lacks the instructions, by the same kernels with their
products in plain arithmetic, which round their inputs alike. If the outputs move by more than ``LIMIT``, each layer is
run alone in both precisions, on what it reads in the network (``coarse``), and the dearest stay in float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from secateur.ir import Array, Graph
from secateur.ir.numeric import relative_error
from secateur.passes.sweep.batches import batches, classes_of
from secateur.run import Runner

from .coarse import costs, dearest
from .library import Check, differs

if TYPE_CHECKING:
    from secateur.codegen import Library, Precision, Target
    from secateur.codegen.records import Records

LIMIT = 5e-2  # of the largest output: 2 ** -8 is the rounding of one number
TRIES = 3  # rounds of leaving layers out before all stay in float32
EXAMPLES = 256  # of the calibration data, at most


class Builds(Protocol):
    """The library of a graph in which layers of these labels stay in float32; None: all of them."""

    def __call__(self, graph: Graph, plain: Collection[str] | None, /) -> Library: ...


class Names(Protocol):
    """The layers of a graph that multiply in bfloat16, by label."""

    def __call__(self, graph: Graph, /) -> Collection[str]: ...


def narrowed(graph: Graph, library: Library, threads: int, records: Records, fast: bool, precision: Precision,
             calibration: Iterable[object] | None) -> Library:  # fmt: skip
    """A library in bfloat16, TF32 or FP16 without it in layers that are too coarse, with notes of how far it is off.

    One that is left in float32 altogether comes back without such notes, one for a GPU that is not here with a note of
    that. Raises LawError where the outputs move too far even then, and InputError for calibration data that the network
    cannot take.
    """
    from secateur import codegen

    target = library.metadata.target
    if target.gpu and (lacking := codegen.missing_features(target)):
        said = f"not compared with f32, as this machine lacks {', '.join(lacking)}"
        library.metadata = dataclasses.replace(library.metadata, notes=(*library.metadata.notes, said))
        return library
    mine = target if target.gpu else codegen.for_here(target)

    def made(part: Graph, plain: Collection[str] | None, where: Target = mine) -> Library:
        kept = codegen.Precision("f32") if plain is None else dataclasses.replace(precision, plain=frozenset(plain))
        return codegen.build(part, where, None, threads, records, fast=fast, precision=kept)

    def layers(part: Graph) -> Collection[str]:
        return codegen.narrow_layers(part, mine, threads, records, precision)

    found = refined(graph, library if mine is target else made(graph, ()), made, layers)
    if found.library.metadata.precision != "f32" and not found.error <= LIMIT:
        raise differs(graph, f"by {found.error:.1e} of its largest output, more than {LIMIT:g}")
    if mine is target:
        library = found.library
    elif found.plain:
        library = made(graph, found.plain, target)
    return (
        library
        if library.metadata.precision == "f32"
        else noted(library, found.error, graph, found.library, calibration)
    )


@dataclass(frozen=True)
class Refined:
    """``library`` without bfloat16 in the layers ``plain``: its outputs move by ``error`` of their largest number."""

    library: Library
    plain: frozenset[str]
    error: float


def refined(graph: Graph, library: Library, build: Builds, narrow: Names) -> Refined:
    """A library that is not too coarse, in as few layers of float32 as that takes; all are such that run here."""
    check = Check(graph)
    found = Refined(library, frozenset(), _error(check, library))
    if found.error <= LIMIT:
        return found
    layers = frozenset(narrow(graph))
    cost = costs(check, layers, build, narrow, LIMIT)
    rooms = [LIMIT / 2 / 4**i for i in range(TRIES)] if cost.keys() >= layers else []
    for plain in dict.fromkeys([*(frozenset(dearest(cost, room)) for room in rooms), layers]):
        library = build(graph, plain)
        found = Refined(library, plain, _error(check, library))
        if found.error <= LIMIT:
            break
    return found


def _error(check: Check, library: Library) -> float:
    outputs = check.outputs(library)
    return max((relative_error(want, have) for want, have in zip(check.wants, outputs, strict=True)), default=0.0)


def noted(library: Library, error: float, graph: Graph, here: Library, calibration: Iterable[object] | None) -> Library:
    """The library with notes of how far its outputs are from float32: on random inputs, and on data if there are any.

    ``here`` computes the same on this machine. Raises InputError for data that the network cannot take.
    """
    kind = library.metadata.precision
    said = [f"outputs in {kind} differ from those in f32 by {error:.1e} of their largest, on random inputs"]
    if calibration is not None:
        said.append(_on_data(graph, here, calibration))
    notes = (*library.metadata.notes, *said)
    library.metadata = dataclasses.replace(library.metadata, notes=notes)
    return library


def _on_data(graph: Graph, library: Library, calibration: Iterable[object]) -> str:
    """What the first examples of the data say of both."""
    run, worst, same, examples = Runner(), 0.0, 0, 0
    scores = classes_of(graph) is not None
    for batch in batches(graph, calibration):
        want = [np.asarray(a)[: batch.examples] for a in run(graph, batch.inputs)]
        have = [np.asarray(a)[: batch.examples] for a in rows(library, list(batch.inputs.values()))]
        worst = max(worst, *(relative_error(a, b) for a, b in zip(want, have, strict=True)))
        examples += batch.examples
        if scores:
            same += int((want[0].argmax(axis=1) == have[0].argmax(axis=1)).sum())
        if examples >= EXAMPLES:
            break
    agreement = f"{same / max(examples, 1):.1%} of the answers are the same, " if scores else ""
    return f"on {examples} examples of the calibration data {agreement}outputs differ by {worst:.1e} of their largest"


def rows(library: Library, inputs: Sequence[Array]) -> list[Array]:
    """The outputs of a library for as many rows as are given, in runs of its own batch; the last row fills the last."""
    size, count = library.metadata.inputs[0].shape[0], len(inputs[0])
    found = []
    for start in range(0, count, size):
        at = np.minimum(np.arange(start, start + size), count - 1)
        made = library(*(np.ascontiguousarray(x[at]) for x in inputs))
        found.append(made if isinstance(made, tuple) else (made,))
    return [np.concatenate(parts)[:count] for parts in zip(*found, strict=True)]
