"""``compile`` and its sisters: everything that the command line does, for scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.ir import Array, Graph, InputError, LawError, Unsupported
from secateur.passes import Pipeline
from secateur.passes.allocate import LANES, Allocation, Baseline, Cost, Vectors
from secateur.passes.analysis.cost import cost
from secateur.passes.analysis.coupling import Couple
from secateur.passes.analysis.notes import Coupling
from secateur.passes.law import Verification, check
from secateur.passes.pipeline import Ran, print_pass
from secateur.passes.recipe import Recipe, fingerprint, recipe_of
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.layers import Rewritten
from secateur.passes.sweep.data import Calibration
from secateur.passes.sweep.needs import Statistics

from . import __version__
from .calibration import load_calibration
from .latency import clock, compare
from .models import Runner, capture, check_protect, check_weights, close_names, evaluate, load, save_onnx, trace
from .policy import Policy
from .quality import measure
from .report import Report, group_rows, keep_of, layer_rows, versions
from .rewriting import AFTER, CUT, met_already, of_recipe, restructure, steps_of

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from secateur.codegen import Library

    from .models import Model

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network made smaller, with what is known about it. ``dense`` is the graph it was made from."""

    graph: Graph
    dense: Graph
    recipe: Recipe
    report: Report
    _run: Runner = dataclasses.field(default_factory=Runner, init=False, repr=False)
    _library: list[Library] = dataclasses.field(default_factory=list, init=False, repr=False)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the slim network. Torch tensors give torch tensors, NumPy arrays give NumPy arrays.

        One output comes back alone, several as a tuple. A library that was built runs it, at the sizes it was
        built for. Raises InputError for missing or unknown inputs.
        """
        given = {**dict(zip((v.name for v in self.graph.inputs), inputs, strict=False)), **named}
        wanted = [v.name for v in self.graph.inputs]
        if len(inputs) > len(wanted) or set(given) != set(wanted):
            raise InputError(
                f"network '{self.graph.name}' takes the inputs {', '.join(wanted)}; given: {', '.join(given)}"
            )
        for library in self._library:
            if all(tuple(np.shape(given[p.name])) == p.shape for p in library.metadata.inputs):
                return library(**given)
        tensors = any(type(x).__module__.partition(".")[0] == "torch" for x in given.values())
        outputs = self._run(self.graph, {name: _array(x) for name, x in given.items()})
        if tensors:
            import torch

            outputs = [torch.from_numpy(np.ascontiguousarray(y)) for y in outputs]  # type: ignore[misc]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def module(self) -> GraphModule:
        """A torch module of its own that trains, saves and exports; parameters keep their names."""
        from secateur.ir.exporters.torch import to_module

        return to_module(self.graph)

    def save(self, path: str | Path) -> None:
        """Write ONNX. The file appears whole or not at all. Raises InputError."""
        save_onnx(self.graph, path)

    def build(
        self,
        target: str = "native",
        tune: str | float | None = None,
        threads: int = 1,
        records: str | Path | None = None,
        progress: Callable[[int, int, str], None] | None = None,
        batch: int | None = None,
    ) -> Library:
        """A tuned library of the slim network, which calls of this object use from then on.

        ``tune`` "60s": how long kernels may be measured; ``records``: the file that keeps what was measured; ``batch``:
        another one than the network was captured with. Raises InputError, and Unsupported without TVM.
        """
        from .build import build

        made = build(self.graph, target, tune, threads, records, progress, batch)
        self._library[:] = [made, *(old for old in self._library if old.metadata.inputs != made.metadata.inputs)]
        return made


def compile(
    model: Model,
    policy: Policy | str | Path = "l1",
    *,
    example_inputs: Any = None,
    calibration: Iterable[Any] | str | Path | None = None,
    target: str | None = None,
    seed: int = 0,
    protect: Sequence[str] = (),
    round_to: int | str | None = None,
    macs: float | int | str | None = None,
    params: float | int | str | None = None,
    bytes: float | int | str | None = None,
    latency_ms: float | str | None = None,
    sparsity: float | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> Compiled:
    """Make ``model`` smaller as ``policy`` says, and prove that nothing else changed.

    ``macs``, ``params``, ``bytes`` say what remains at most, ``latency_ms`` how long a run may take on this machine
    and one thread (a few networks are made and measured); they override the policy's budget. ``protect`` adds globs
    of layer names to leave alone. ``calibration``: batches ``x``, ``(x, y)`` or dicts by input name, or the path of
    an .npz file or a folder of images. ``progress`` is told the name of each stage. With ``target`` "native" both
    networks are timed side by side on this machine, on one thread, in code generated for it (if TVM is installed)
    and in ONNX Runtime. Widths follow the vectors of ``target``, of this machine without one, if ``round_to`` is
    "auto".
    Raises InputError, Unsupported, BudgetError, and LawError or SlowerError where the result is not what it must be.
    """
    _only_this_version(sparsity)
    lanes = _lanes(target)
    budgets = {"macs": macs, "params": params, "bytes": bytes, "latency_ms": latency_ms}
    chosen = _policy(policy, protect, round_to, budgets)
    tell = progress or _quiet
    tell("read the model")
    dense = _with_baseline(capture(model, example_inputs)).with_note(Vectors(lanes))
    check_weights(dense)
    check_protect(dense, chosen.protect)
    trail = _Trail(tell)
    data = load_calibration(Path(calibration), dense) if isinstance(calibration, str | Path) else reusable(calibration)
    start = dense if chosen.budget[0] != "latency_ms" else dense.with_note(_clock(target, seed, tell))
    if data is not None:
        start = start.with_note(Calibration(data, seed, lambda n: tell(f"calibrate: {n} examples")))
    made = restructure(start, chosen.structure(), trail.see, Runner(keep=2))
    slim = Pipeline(chosen.passes(seed), (trail.see,))(made.graph)
    slim, recipe = _with_recipe(slim, dense)
    verification = None
    if verify:
        tell("check the law")
        verification = check(made.graph, slim, recipe, run=Runner(), seed=seed)
        if not verification.passed:
            raise LawError(_broken(dense, verification))
        if made.specs:
            verification = dataclasses.replace(verification, reference=AFTER)
    if chosen.compensation():
        slim = Pipeline(chosen.compensation(), (trail.see,))(slim)
        recipe = dataclasses.replace(recipe, rewrites=getattr(slim.note(Recipe), "rewrites", ()))
    if made.specs:  # before the cut, so they come first in what a replay has to do
        recipe = dataclasses.replace(recipe, rewrites=(*made.specs, CUT, *recipe.rewrites))
    slim = slim.with_note(recipe)
    quality = None if data is None else measure(dense, slim, data, Runner(keep=2))
    latency: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    if target not in (None, "native"):
        warnings = (
            f"not timed beside the original: of all targets only native is sure to be this machine, not {target}",
        )
    elif target is not None and chosen.criterion is not None:
        tell("time both")
        latency, warnings = compare(dense, slim, seed)
    done = slim.note(Allocation)
    remarks = (
        *made.remarks,
        *(met_already(made.graph, chosen.budget) if made.specs and chosen.criterion is not None else ()),
        *warnings,
        *_remarks(data is not None and quality is None, trail),
        *(() if done is None else done.remarks),
    )
    if done is not None:  # with the number that "auto" came to, so that the line says the same on any machine
        chosen = dataclasses.replace(chosen, round_to=done.round_to)
    report = make_report(
        _title(model, dense), dense, slim, trail, chosen.spec, seed, verification, remarks, quality, latency
    )
    return Compiled(slim, dense, recipe, report)


def inspect(model: Model, *, example_inputs: Any = None, protect: Sequence[str] = ()) -> Report:
    """Groups, ties, what is frozen and why, and the cost of each layer; nothing is changed."""
    dense = _with_baseline(capture(model, example_inputs))
    check_protect(dense, protect)
    trail = _Trail(_quiet)
    coupled = Pipeline((Canonicalize(), Couple(protect=tuple(protect))), (trail.see,))(dense)
    trail.coupled = coupled
    return make_report(_title(model, dense), dense, None, trail, "none", 0, None, ())


def verify(
    original: Model,
    slim: Model,
    recipe: Recipe | str | Path,
    *,
    seed: int = 0,
    given: Sequence[Mapping[str, Array]] = (),
) -> Verification:
    """Check the law from the recipe alone, on random and given inputs. Raises InputError where they do not fit.

    Where the recipe names passes that mended weights after the cut, the cut is repeated and checked, and the slim
    network's shapes are compared with it. Where it names rewrites before the cut, they are repeated on the original
    first, and the law speaks of the network that they give.
    """
    known = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    _, cutting = of_recipe(known)
    dense, small = capture(original), capture(slim)
    _same_interface(dense, small)
    dense = rewritten(known, dense)
    if cutting.rewrites:  # weights were mended on purpose: the law speaks of the network before that
        cut = apply(cutting, dense)
        _same_shapes(cut, small)
        small = cut
    found = check(dense, small, known, run=Runner(), seed=seed, given=given)
    return dataclasses.replace(found, reference=AFTER) if cutting is not known else found


def apply(recipe: Recipe | str | Path, model: Model, *, example_inputs: Any = None) -> Graph:
    """Replay a recipe on a model of the same network, whatever its weights are now. Raises InputError."""
    known = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    graph = rewritten(known, capture(model, example_inputs))
    missing = sorted(set(known.weights) - set(graph.weights))
    if missing:
        raise InputError(
            f"recipe: '{graph.name}' has no weight '{missing[0]}'{close_names(missing[0], graph.weights)}; "
            "the recipe was made for another network"
        )
    return known.apply(Canonicalize()(graph))


def rewrite(
    model: Model,
    passes: str,
    *,
    example_inputs: Any = None,
    calibration: Iterable[Any] | str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Compiled:
    """Structural rewrites alone: ``passes`` is a spec line such as ``"separable{rank=1},fold_bn"``.

    The report lists each rewritten layer with its error, and each that was left alone with the reason. Raises
    InputError.
    """
    chosen = Policy(None, rewrites=tuple(print_pass(step) for step in steps_of(passes)))
    return compile(model, chosen, example_inputs=example_inputs, calibration=calibration, seed=seed, progress=progress)


def rewritten(recipe: Recipe, graph: Graph) -> Graph:
    """The graph after what the recipe did before its cut: what the law compares with."""
    steps, _ = of_recipe(recipe)
    return Pipeline(steps)(graph)


def make_report(
    title: str,
    dense: Graph,
    slim: Graph | None,
    trail: _Trail,
    policy: str,
    seed: int,
    verification: Verification | None,
    remarks: tuple[str, ...],
    quality: Mapping[str, Any] | None = None,
    latency: Mapping[str, Any] | None = None,
) -> Report:
    """Put together what the passes found and did."""
    coupling = trail.coupled.note(Coupling) if trail.coupled is not None else None
    keep = keep_of(trail.coupled) if trail.coupled is not None else None
    done = slim.note(Allocation) if slim is not None else None
    changed = (slim.note(Rewritten) if slim is not None else None) or Rewritten()
    budget = None
    if done is not None:
        budget = {"kind": done.amount.kind, "target": done.amount.value, "achieved": done.achieved}
    noted = dense.note(Baseline)
    before = noted.costs if noted else cost(dense)
    return Report(
        model=title,
        policy=policy,
        seed=seed,
        versions=versions(),
        before=before.totals(),
        after=cost(slim).totals() if slim is not None else None,
        budget=budget,
        verification=dataclasses.asdict(verification) if verification else None,
        groups=tuple(group_rows(coupling, keep)) if coupling else (),
        layers=tuple(layer_rows(before, trail.coupled, slim, changed)),
        passes=tuple(trail.ran),
        rewrites=tuple(row.to_dict() for row in changed.rows),
        remarks=remarks,
        quality=quality,
        latency_ms=latency,
        secateur=__version__,
    )


class _Trail:
    """Watches a pipeline: what ran, how long, and the last graph that still had its analyses."""

    def __init__(self, tell: Progress) -> None:
        self.ran: list[dict[str, Any]] = []
        self.coupled: Graph | None = None
        self.tell = tell

    def see(self, ran: Ran) -> None:
        self.tell(ran.step.name)
        self.ran.append({"spec": print_pass(ran.step), "seconds": round(ran.seconds, 4)})
        if ran.after.note(Coupling) is not None:
            self.coupled = ran.after
        elif ran.before.note(Coupling) is not None:
            self.coupled = ran.before


def _policy(
    policy: Policy | str | Path, protect: Sequence[str], round_to: int | str | None, budgets: Mapping[str, Any]
) -> Policy:
    given = {kind: value for kind, value in budgets.items() if value is not None}
    if len(given) > 1:
        raise InputError(f"{len(given)} budgets were given ({', '.join(given)}); give one, or compile twice")
    chosen = Policy.parse(policy)
    for kind, value in given.items():
        chosen = chosen.with_budget(kind, value)
    if isinstance(protect, str):
        protect = (protect,)
    if round_to is not None:
        chosen = dataclasses.replace(chosen, round_to=round_to)
    return dataclasses.replace(chosen, protect=(*chosen.protect, *protect))


def _lanes(target: str | None) -> int:
    """How many channels a vector of the target holds, or of this machine. Raises InputError for an unknown target."""
    from secateur.codegen import get_target

    try:
        return get_target(target or "native").lanes
    except InputError:
        if target is not None:
            raise
        return LANES


def _clock(target: str | None, seed: int, tell: Progress) -> Cost:
    """What allocation measures with. Raises InputError for another machine than this one."""
    if target not in (None, "native"):
        raise InputError(
            f"budget latency_ms with target '{target}': time is measured on this machine; use target native, or give a "
            "budget in macs"
        )
    milliseconds = clock(seed)

    def told(graph: Graph) -> float:
        tell("measure the latency")
        return milliseconds(graph)

    return Cost(told)


def _only_this_version(sparsity: float | None) -> None:
    if sparsity is not None:
        raise Unsupported("sparsity: sparse weights need code generation, which isn't part of this version")


def _with_baseline(graph: Graph) -> Graph:
    return graph.with_note(Baseline(cost(graph)))


def _with_recipe(slim: Graph, dense: Graph) -> tuple[Graph, Recipe]:
    """The recipe that ``slim`` left, with the original's hash; one that prunes nothing is the identity's."""
    recipe = slim.note(Recipe)
    if recipe is None:
        coupled = slim if slim.note(Coupling) is not None else Couple()(slim)
        coupling = coupled.note(Coupling)
        assert coupling is not None
        recipe = recipe_of(coupled, coupling, np.ones(coupling.size, bool))
    recipe = dataclasses.replace(recipe, sha256=fingerprint(dense.weights))
    return slim.with_note(recipe), recipe


def _remarks(idle: bool, trail: _Trail) -> tuple[str, ...]:
    """What the sweep says of itself, or that the data were not needed (``idle``: they gave no quality either)."""
    found = trail.coupled.note(Statistics) if trail.coupled is not None else None
    if any(ran["spec"].startswith("drop_layer") for ran in trail.ran):
        idle = False  # it chose by them
    if found is None:
        return ("calibration was given and not needed: the criterion reads the weights alone",) if idle else ()
    loss = f"; loss: {found.loss}" if found.loss else ""
    return (f"calibrated on {found.examples} examples{loss}",)


def reusable(data: Iterable[Any] | None) -> Iterable[Any] | None:
    """Data that can be gone through more than once: what can be iterated only once is kept as a list."""
    return list(data) if isinstance(data, Iterator) else data


def _broken(graph: Graph, verification: Verification) -> str:
    return (
        f"'{graph.name}': the slim network differs from the masked original by {verification.max_rel_err:.1e} "
        f"(relative, {verification.inputs} inputs); nothing was written. This is a fault in secateur: please report "
        "it with the model, or protect the layers that `secateur inspect` ties in an unexpected way"
    )


def _same_interface(dense: Graph, small: Graph) -> None:
    one, other = ([(v.name, tuple(v.shape)) for v in g.inputs] for g in (dense, small))
    if one != other or len(dense.outputs) != len(small.outputs):
        raise InputError(
            f"'{small.name}' takes {other} and gives {len(small.outputs)} outputs, '{dense.name}' takes {one} and "
            f"gives {len(dense.outputs)}: these are not the same network before and after"
        )


def _same_shapes(cut: Graph, small: Graph) -> None:
    """Raises InputError where the slim network is not what the recipe cuts, whatever its weights hold."""
    shapes = {name: w.shape for name, w in cut.weights.items()}
    for name, weight in small.weights.items():
        if shapes.get(name, weight.shape) != weight.shape:
            raise InputError(
                f"'{small.name}': weight '{name}' has shape {weight.shape}, the recipe leaves {shapes[name]}; "
                "it is not the network that this recipe was saved with"
            )


def _array(x: Any) -> Array:
    return np.asarray(x.detach().cpu().numpy() if hasattr(x, "detach") else x)


def _title(model: Model, graph: Graph) -> str:
    """The file's name, or what the graph is called."""
    return Path(model).name if isinstance(model, str | Path) else graph.name


def _quiet(stage: str) -> None:
    return None


__all__ = [
    "Compiled", "apply", "capture", "check_weights", "compile", "evaluate", "inspect", "load",
    "make_report", "rewrite", "rewritten", "save_onnx", "trace", "verify",
]  # fmt: skip
