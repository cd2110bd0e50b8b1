"""``verify``: whether a slim network is what a recipe makes of its original, and what of that was compared.

The recipe is replayed, and the slim network is laid over what comes out: the same operators, attributes and wiring up
to names, and weights that are the same to the last bit. Weights that are not a cut of the original's, because a rewrite
made them or a compensation changed them, must have the digest that the recipe states and be ones which those passes
may change. A file whose structure is another tool's is compared by what it computes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secateur.ir import Array, Graph, InputError, Sym
from secateur.ir.compare import align
from secateur.ir.numeric import random_inputs
from secateur.passes import AFTER_CUT
from secateur.passes.law import Verification, check, distance
from secateur.passes.recipe import Recipe
from secateur.passes.recipe.digests import digest, fingerprint, same
from secateur.passes.recipe.mask import check_names
from secateur.passes.replay import replayed
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.tables import may_change, repairs_of

from .calibration.load import feeds
from .capture import capture, check_weights, fresh, reread
from .checks.reading import check_reading
from .replay import rewritten
from .restructure import AFTER
from .run import Runner

if TYPE_CHECKING:
    from .capture import Model

FEW = 3  # weights that a sentence names
FUNCTION = "function; the structure is another tool's"


@dataclass(frozen=True)
class Bound:
    """What laying the slim network over the replay showed.

    ``structure`` is the first difference in words. Of the weights, by the replay's names: ``equal`` counts those that
    are the same to the last bit, ``recorded`` are a rewrite's that this machine makes otherwise, ``loose`` the same in
    a recipe without digests, ``changed`` a compensation's, ``wrong`` are sentences on those that nothing allows.
    """

    structure: str | None = None
    equal: int = 0
    recorded: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def verify(
    original: Model,
    slim: Model,
    recipe: Recipe | str | Path,
    *,
    example_inputs: object = None,
    seed: int = 0,
    given: Sequence[Mapping[str, Array] | str | Path] = (),
    trust: bool = False,
) -> Verification:
    """Check that ``slim`` is what the recipe makes of ``original``, and the law, on random and given inputs.

    ``given`` are inputs by name, or .npz files of them. ``example_inputs`` capture what is a torch module.
    ``compared`` of the answer says what was compared, ``changed``
    which weights were changed on purpose after the cut, and ``distance`` what that did to the outputs; ``reason`` why
    it did not pass. Raises InputError where the three do not fit together.
    """
    known = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    dense = fresh(capture(original, example_inputs, fold=known.changes))
    small = fresh(capture(slim, example_inputs, fold=known.changes))
    check_weights(dense)
    known = known.of(dense)
    if not trust:
        check_reading(original, dense, example_inputs, seed=seed)
    small = _same_interface(dense, small)
    inputs = feeds(dense, given)
    start = rewritten(known, dense)
    check_names(known, start)
    cut = replayed(known, Canonicalize()(start))
    bound = bind(known, dense, start, cut, small, example_inputs)
    shown = _shown(known, dense, start, cut, small, bound, seed, inputs)
    return dataclasses.replace(shown, reference=AFTER) if known.steps.before else shown


def bind(known: Recipe, dense: Graph, start: Graph, cut: Graph, small: Graph, example_inputs: object = None) -> Bound:
    """Lay the slim network over what the replay gave, as it is or as it is read back from the slim one's format."""
    found = align(cut, small)
    if found.difference is not None:
        again = reread(cut, small, example_inputs)
        found = found if again is None else align(again, small)
        if again is not None and found.difference is None:
            cut = again
    if found.difference is not None:
        return Bound(found.difference)
    made = {name for name, w in start.weights.items() if not same(w, dense.weights.get(name))}
    allowed = may_change((*repairs_of(known.steps.before), *known.steps.after), cut)
    equal, recorded, loose, changed, wrong = 0, list[str](), list[str](), list[str](), list[str]()
    for name, other in found.weights:
        mine, theirs = cut.weights[name], small.weights[other]
        if same(mine, theirs):
            equal += 1
        elif known.digests.get(name) == digest(theirs) and name in made | allowed:
            (changed if name in allowed else recorded).append(name)
        elif name in made - allowed and name not in known.digests:  # as other machines round it: the law judges
            loose.append(name)
        else:
            wrong.append(_wrong(known, name, mine, theirs, name in made | allowed))
    return Bound(None, equal, tuple(recorded), tuple(loose), tuple(changed), tuple(wrong))


def _wrong(known: Recipe, name: str, mine: Array, theirs: Array, changes: bool) -> str:
    """What is wrong with a weight that is not the cut's; ``changes``: a pass that the recipe lists may change it."""
    gap = ""
    if mine.dtype.kind == "f":
        gap = f" by up to {float(np.abs(mine.astype(np.float64) - theirs.astype(np.float64)).max(initial=0)):.2g}"
    differs = f"weight '{name}' differs{gap} from what the cut gives"
    if not changes:
        return f"{differs}, and no pass that the recipe lists changes it"
    if name in known.digests:
        return f"{differs}, and is not the one whose digest the recipe holds"
    return f"{differs}, and the recipe holds no digest of what {', '.join(_after(known))} made of it"


def _shown(
    known: Recipe, dense: Graph, start: Graph, cut: Graph, small: Graph, bound: Bound, seed: int,
    given: Sequence[Mapping[str, Array]],
) -> Verification:  # fmt: skip
    """The verdict: the law for what computes by the cut's weights, and for the rest what was compared of it."""
    run = Runner()
    if bound.wrong:
        return _refused(known, dense, check(start, cut, known, run=run, seed=seed, given=given), bound)
    if bound.structure is not None:
        more = [*given, *_scaled(start, seed)]
        found = check(start, small, known, run=run, seed=seed, given=more)
        reason = None if found.passed else _elsewhere(known, bound.structure)
        return dataclasses.replace(found, compared=FUNCTION, reason=reason)
    compared = f"structure; {bound.equal} weights to the last bit"
    if bound.recorded:
        compared += f", {len(bound.recorded)} of rewrites by their digests"
    if bound.loose:
        compared += f", {len(bound.loose)} of rewrites by what they compute"
    if not bound.changed:
        found = check(start, small, known, run=run, seed=seed, given=given)
        reason = None if found.passed else "the law fails for what the recipe gives"
        return dataclasses.replace(found, compared=compared, reason=reason)
    found = check(start, cut, known, run=run, seed=seed, given=given)
    compared += f", {len(bound.changed)} that {', '.join(_after(known))} may change by their digests"
    gap = distance(start, small, known, run=run, seed=seed, given=given)
    return dataclasses.replace(found, compared=compared, changed=bound.changed, distance=gap)


def _scaled(graph: Graph, seed: int) -> list[dict[str, Array]]:
    """Small and large inputs: where only the function is compared, a network that saturates should hide nothing."""
    feeds = [(scale, random_inputs(graph, seed + i + 1000)) for i, scale in enumerate((0.1, 10.0))]
    return [
        {n: (x * scale).astype(x.dtype) if x.dtype.kind == "f" else x for n, x in feed.items()} for scale, feed in feeds
    ]


def _refused(known: Recipe, dense: Graph, found: Verification, bound: Bound) -> Verification:
    more = f" (and {len(bound.wrong) - FEW} weights more)" if len(bound.wrong) > FEW else ""
    reason = "; ".join(bound.wrong[:FEW]) + more
    if known.sha256 and known.sha256 != fingerprint(dense.weights):
        reason += "; the original is not the one that the recipe was made of: its weights are others"
    return dataclasses.replace(found, passed=False, compared="structure and weights", reason=reason)


def _elsewhere(known: Recipe, difference: str) -> str:
    """Why a network of another structure did not pass."""
    reason = f"its structure is not what the recipe gives ({difference}), and it computes something else"
    if _after(known):
        reason += (
            f"; weights that {', '.join(_after(known))} changed can be compared only in a file as secateur wrote it"
        )
    return reason


def _after(known: Recipe) -> list[str]:
    after = (step for step in known.steps.after if step.name in AFTER_CUT)
    return list(dict.fromkeys(step.name for step in (*repairs_of(known.steps.before), *after)))


def _same_interface(dense: Graph, small: Graph) -> Graph:
    """The slim network with the original's names of inputs. Raises InputError where it takes or gives other values."""
    fits = len(dense.inputs) == len(small.inputs) and len(dense.outputs) == len(small.outputs)
    names = [v.name for v in dense.inputs]
    if fits and {v.name for v in small.inputs} == set(names):
        order = [next(v for v in small.inputs if v.name == name) for name in names]
        small = small.rewrite(inputs=order)
    fits = fits and all(
        a.dtype == b.dtype and len(a.shape) == len(b.shape)
        and all(x == y or isinstance(x, Sym) or isinstance(y, Sym) for x, y in zip(a.shape, b.shape, strict=True))
        for a, b in zip(dense.inputs, small.inputs, strict=True)
    )  # fmt: skip
    if not fits:
        one, other = (", ".join(f"'{v.name}' {v}" for v in g.inputs) for g in (dense, small))
        raise InputError(
            f"'{small.name}' takes {other} and gives {len(small.outputs)} outputs, '{dense.name}' takes {one} and "
            f"gives {len(dense.outputs)}: these are not the same network before and after"
        )
    return _renamed(small, dict(zip((v.name for v in small.inputs), names, strict=True)))


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph with its inputs under these names. Raises InputError where another value has one of them."""
    if all(old == new for old, new in names.items()):
        return graph
    for old, new in names.items():
        if new not in names and (new in graph.weights or new in graph.producer):
            raise InputError(f"'{graph.name}' calls its input '{old}', and something else '{new}': rename its inputs")
    inputs = [dataclasses.replace(v, name=names[v.name]) for v in graph.inputs]
    nodes = [dataclasses.replace(n, inputs=tuple(names.get(i, i) if i else i for i in n.inputs)) for n in graph.nodes]
    return graph.rewrite(inputs=inputs, nodes=nodes, outputs=[names.get(o, o) for o in graph.outputs])


__all__ = ["Bound", "bind", "verify"]
