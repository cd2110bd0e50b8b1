"""``scores``: what a criterion thinks of each channel, without cutting any."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.ir import Array
from secateur.ir.progress import Listener, listening
from secateur.passes import Pipeline
from secateur.passes.context import in_context
from secateur.passes.notes import Coupling, Importance
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.score import Criterion

from .calibration.images import Preparation
from .calibration.load import opened
from .capture import capture, check_protect, check_weights, fresh, protected
from .policy import Policy

if TYPE_CHECKING:
    from .capture import Model, Protect, Shapes


def scores(
    model: Model,
    criterion: Criterion | str = "l1",
    *,
    example_inputs: object = None,
    calibration: Iterable[object] | str | Path | None = None,
    seed: int = 0,
    protect: Protect = (),
    progress: Listener | None = None,
    preparation: Preparation | None = None,
    shapes: Shapes | None = None,
) -> dict[str, Array]:
    """One number for each unit of each channel group, by the group's id in the report: f64[size], higher is kept.

    NaN where the criterion has no score. ``criterion``: a name with options (``"taylor"``, ``"l1{greedy=50%}"``) or an
    object of your own; options as in ``compile``; all of ``calibration`` is scored on. Raises InputError, Unsupported.
    """
    policy, tell = Policy(criterion), listening(progress)
    dense = fresh(capture(model, example_inputs, shapes=shapes))
    check_weights(dense)
    policy = dataclasses.replace(policy, protect=protected(model, dense, protect))
    check_protect(dense, policy.protect)
    data = opened(calibration, dense, preparation, 0.0, seed, policy.uses_data)
    start = in_context(dense, progress=tell)
    if data is not None:
        start = in_context(start, calibration=data.known)
    scored = Pipeline((Canonicalize(), *policy.scoring(seed)))(start)
    coupling, importance = scored.note(Coupling), scored.note(Importance)
    assert coupling is not None
    assert importance is not None
    return {group.id: importance.scores[group.units] for group in coupling.groups}
