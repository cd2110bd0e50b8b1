"""``compile`` and its sisters: everything that the command line does, for scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secateur.ir import Graph, InputError
from secateur.ir.followed import has_symbols
from secateur.ir.frontends.onnx.process import OnnxProcess
from secateur.ir.progress import Listener, Progress, listening
from secateur.ir.torch_origin import TorchOrigin
from secateur.passes import Pipeline
from secateur.passes.allocate import Allocation
from secateur.passes.allocate.amount import takes_budget
from secateur.passes.context import LatencyModel, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.law import Verification, check, failure
from secateur.passes.notes import Coupling
from secateur.passes.recipe import Recipe, Steps
from secateur.passes.recipe.build import recipe_of
from secateur.passes.recipe.digests import digests, fingerprint
from secateur.passes.rewrite.portable import Portable
from secateur.passes.sparsify.zeros import notes_of, zeros_of

from .arguments import (
    check_by_hand_alone,
    check_recipe_alone,
    checkpoints_of,
    goal_of,
    lanes_of,
    most_of,
    policy_of,
    table_of,
    targets_of,
    untimed,
)
from .by_hand import by_hand, passes_by_hand
from .calibration.holdout import SHARE
from .calibration.images import Preparation
from .calibration.load import Given, opened
from .capture import capture, check_protect, check_weights, fresh, load, protected, trace
from .checks.reading import check_reading
from .compiled import Compiled
from .inspection import inspect, title_of
from .policy import Policy
from .quality import share_of_macs, smallest, too_slow
from .replay import apply, with_baseline
from .report.collect import Collector, make_report, remarks_of
from .report.parts import Latency
from .restructure import AFTER, Restructured, met_already, restructure, steps_of
from .run import Runner, evaluate
from .save import save_onnx
from .scoring import scores
from .timing.agreement import measure
from .verification import verify
from .zeros import advised, sparse_of, with_zeros

if TYPE_CHECKING:
    from .capture import Layer, Model, Protect, Shapes


def compile(
    model: Model,
    policy: Policy | str | Path = "l1",
    *,
    example_inputs: object = None,
    calibration: Given = None,
    target: str | None = None,
    seed: int = 0,
    protect: Protect = (),
    round_to: int | str | None = None,
    macs: float | int | str | None = None,
    params: float | int | str | None = None,
    bytes: float | int | str | None = None,
    latency_ms: float | str | None = None,
    speedup: float | str | None = None,
    keep: float | str | None = None,
    max_error: float | str | None = None,
    checkpoint: str | Path | None = None,
    latency_table: str | Path | None = None,
    runtime: str | None = None,
    sparsity: float | str | None = None,
    block: str | tuple[int, int] | None = None,
    records: str | Path | None = None,
    tune: str | float | None = None,
    verify: bool = True,
    trust: bool = False,
    progress: Listener | None = None,
    recipe: Recipe | str | Path | None = None,
    preparation: Preparation | None = None,
    holdout: float | str = SHARE,
    shapes: Shapes | None = None,
    process: OnnxProcess | None = None,
    widths: Mapping[Layer, float | int] | None = None,
    drop: Mapping[Layer, Sequence[int]] | None = None,
) -> Compiled:
    """Make ``model`` smaller as ``policy`` says, and prove that nothing else changed.

    ``macs``, ``params``, ``bytes`` say what remains at most, ``latency_ms`` how long a run may take on this machine and
    one thread, ``speedup`` ("2x") how many times as fast as the original it must be there (a few networks are made and
    measured next to it); they override the policy's budget. ``keep`` ("99%") asks for the smallest network of which so
    many answers (most likely classes) on held-out calibration data are the original's: several are made, repaired as
    the policy says, with ``macs`` as the most that may remain, and within a budget of time where one is given.
    ``max_error`` ("1%") does the same for outputs that are no classes: in the mean of the held-out examples they differ
    by so much at most, as norms (``report.deviation``).
    ``checkpoint``: a folder for the state of ``distill``: after a kill the same call goes on where it was.
    ``latency_table`` is a CSV file of layers' milliseconds (``timing.tables``) that stands for measuring, of any
    machine, and ``runtime`` ("onnxruntime", "openvino", "torch", "secateur") says where a budget of time is measured;
    by default in our own code if TVM is here, else in ONNX
    Runtime. ``protect`` adds layers to
    leave alone: globs of their names, or types or modules of ``model``. ``widths`` and ``drop`` choose by hand in place
    of a budget, by the same names: a layer keeps a share of its output channels (0.5) or so many (32), those that the
    criterion ranks highest, or loses these channels; layers that nobody names keep all. ``calibration``: batches ``x``,
    ``(x, y)`` or dicts by input name, or the path of an .npz file or a folder of images, which ``preparation`` makes
    inputs of. Where it is scored or fitted on, ``holdout`` (0.25) of its examples are kept apart for the report's
    quality, those with the smallest digests under ``seed``. ``progress`` is told what runs, by its name alone or as
    ``progress(done, total, what)`` with ``total`` None where nobody knows. With ``target`` "native" both networks are
    timed side by side on this machine, on one thread, in code generated for it (if TVM is installed) and in ONNX
    Runtime. ``recipe`` is replayed instead of a policy, as ``apply`` does. Widths follow the vectors of ``target``
    (several have commas between them: the widest), of eight channels without one, if ``round_to`` is "auto".
    ``shapes``: shapes of an ONNX file's inputs, by name, to count and time at where it leaves sizes open; they stay
    open in what is written. The model as it was given is run next to
    what was read from it, and so is each file that is written; ``trust`` leaves these checks out, ``verify=False`` all
    of them.
    ``process`` is where files run that nobody has run before, given where several calls are to share one.
    ``sparsity`` (0.7, "70%") is the share of zeros that the weights of each wide enough layer get after the cut, in the
    pattern ``block``: "auto" (blocks of a vector of outputs, where our kernels gain by them), "kernels" (such blocks
    with all taps of an input, for Winograd's algorithm), "irregular", "darb", "bmwm", "2:4" or "8x1". With calibration
    data second moments choose them and what remains is fitted, else magnitude. Which layers gain by "auto" is
    estimated; ``records``, a file, has measured seconds, and with ``tune`` ("60s") kernels are measured so long.
    Raises InputError, Unsupported, BudgetError, and LawError or SlowerError where the result is not what it must be.
    """
    if recipe is not None:
        given_too = {
            "macs": macs, "params": params, "bytes": bytes, "latency_ms": latency_ms, "speedup": speedup, "keep": keep,
            "max_error": max_error, "round_to": round_to, "protect": protect or None, "calibration": calibration,
            "target": target, "widths": widths, "drop": drop, "sparsity": sparsity, "block": block, "records": records,
            "tune": tune, "latency_table": latency_table, "runtime": runtime, "checkpoint": checkpoint,
        }  # fmt: skip
        check_recipe_alone(given_too, policy)
        return apply(recipe, model, example_inputs=example_inputs, seed=seed, progress=progress, trust=trust)
    if keep is not None or max_error is not None:
        alone = {"params": params, "bytes": bytes, "widths": widths, "drop": drop, "sparsity": sparsity}
        process, goal = process or OnnxProcess(), goal_of(keep, max_error, calibration is not None, alone)
        dense = capture(model, example_inputs, process, shapes)
        fitted = policy_of(policy, round_to, {}).uses_data
        again = partial(
            compile, policy=policy, calibration=opened(calibration, dense, preparation, holdout, seed, fitted),
            target=target, seed=seed, round_to=round_to, trust=trust, progress=progress, process=process,
            checkpoint=checkpoint,
        )  # fmt: skip
        named = protected(model, dense, protect)  # modules of the model, by their names in the graph
        whole = partial(again, model, example_inputs=example_inputs, shapes=shapes, protect=protect, verify=verify)
        dry = partial(again, dense, protect=named, verify=False)
        quickly = partial(dry, target=untimed(target))
        most, limits = most_of(macs, dense), {"latency_ms": latency_ms, "speedup": speedup}
        timed = latency_ms is not None or speedup is not None
        table = table_of(latency_table, lanes_of(target), timed, runtime)
        if not timed:
            return smallest(goal, most, quickly, whole)
        fast = dry(**limits, runtime=runtime, latency_table=latency_table)  # the most work that there is time for
        slow = too_slow(dense, limits, _measured(target, seed, runtime) if table is None else table)
        return smallest(goal, min(most, share_of_macs(fast.report)), quickly, whole, slow)
    budgets = {"macs": macs, "params": params, "bytes": bytes, "latency_ms": latency_ms, "speedup": speedup}
    if widths is not None or drop is not None:
        check_by_hand_alone(budgets)
    chosen = policy_of(policy, round_to, budgets)
    target = target or ",".join(chosen.targets) or None
    lanes = lanes_of(target)
    table = table_of(latency_table, lanes, chosen.timed and widths is None and drop is None, runtime)
    zeros = sparse_of(sparsity, block, calibration is not None, lanes)
    if zeros is None and (records or tune) is not None:
        raise InputError("records= and tune= say by what block='auto' judges layers; give sparsity= as well, as 0.7")
    tell = listening(progress)
    tell(0, None, "read the model")
    process = OnnxProcess() if process is None else process
    if isinstance(model, str | Path) and not trust:
        process.start()  # while the file is read
    dense = with_baseline(fresh(capture(model, example_inputs, process, shapes, chosen.changes or zeros is not None)))
    dense = in_context(dense, lanes=lanes)
    check_weights(dense)
    chosen = dataclasses.replace(chosen, protect=(*chosen.protect, *protected(model, dense, protect)))
    check_protect(dense, chosen.protect)
    zeros = None if zeros is None else dataclasses.replace(zeros, protect=chosen.protect)
    hand = by_hand(model, dense, widths, drop)
    steps, spec = (chosen.passes(seed), None) if hand is None else passes_by_hand(chosen, hand, seed)
    collector = Collector(tell)
    data = opened(
        calibration, dense, preparation, holdout, seed, chosen.uses_data or (zeros is not None and zeros.data)
    )
    reading = None
    if verify and not trust:
        given = None if data is None else data.known.data
        reading = check_reading(model, dense, example_inputs, data=given, process=process, seed=seed, tell=tell)
    start = in_context(dense, progress=tell, checkpoints=checkpoints_of(checkpoint, chosen))
    if hand is None and chosen.timed:
        start = in_context(start, latency=_measured(target, seed, runtime) if table is None else table)
    if data is not None:
        start = in_context(start, calibration=data.known)
    made = restructure(start, chosen.rewrites, collector.see, Runner(keep=2), collector.start)
    slim = Pipeline(steps, (collector.see,), collector.start)(made.graph)
    if chosen.portable and slim.note(Recipe) is not None and any(node.op == "gather" for node in slim.nodes):
        slim = Pipeline((Portable(),), (collector.see,), collector.start)(slim)
    slim, found = _with_recipe(slim, dense)
    verification = None
    if verify:
        tell(0, None, "check the law")
        verification = _law(made, slim, found, seed)
    sparse, dense_still = advised(slim, zeros, next(iter(targets_of(target)), None), records, tune, tell)
    cut, repair = slim, (*chosen.compensation(), *sparse)
    if repair:
        slim = Pipeline(repair, (collector.see,), collector.start)(slim)
    found = dataclasses.replace(
        found, steps=Steps(made.steps, (*found.steps.after, *repair)), digests=digests(dense, made.graph, cut, slim)
    )
    quality, deviation = (
        (None, None) if data is None else measure(dense, slim, data.judge, data.held_out, Runner(keep=2))
    )
    latency, warnings = None, tuple[str, ...]()
    if target is not None and (hand is not None or chosen.criterion is not None or target != "native"):
        latency, warnings = _timed(dense, slim, target, seed, tell)
    done = slim.note(Allocation)
    met = made.steps and hand is None and chosen.criterion is not None and takes_budget(chosen.method)
    remarks = (
        *made.remarks,
        *(met_already(made.graph, chosen.budget) if met else ()),
        *warnings,
        *(() if data is None else data.remarks),
        *remarks_of(data is not None and quality is None and deviation is None and not chosen.uses_data, collector),
        *(() if done is None else done.remarks),
        *(() if table is None else table.remarks(cut)),
        *zeros_of(slim),
        *dense_still,
        *_file_remarks(slim),
    )
    if done is not None:  # with the number that "auto" came to, so that the line says the same on any machine
        chosen = dataclasses.replace(chosen, round_to=done.round_to)
    report = make_report(
        title_of(model, dense), dense, slim, collector, with_zeros(spec or chosen.spec, sparse), seed,
        verification, remarks, quality, deviation, latency, reading,
    )  # fmt: skip
    return Compiled(fresh(slim).with_note(found, *notes_of(slim)), dense, found, report, trust or not verify)


def rewrite(
    model: Model,
    passes: str,
    *,
    example_inputs: object = None,
    calibration: Iterable[object] | str | Path | None = None,
    seed: int = 0,
    progress: Listener | None = None,
    trust: bool = False,
    preparation: Preparation | None = None,
    holdout: float | str = SHARE,
    shapes: Shapes | None = None,
) -> Compiled:
    """Structural rewrites alone: ``passes`` is a spec line such as ``"separable{rank=1},fold_bn"``.

    The report lists each rewritten layer with its error, and each that was left alone with the reason. Raises
    InputError.
    """
    chosen = Policy(None, rewrites=steps_of(passes))
    return compile(
        model, chosen, example_inputs=example_inputs, calibration=calibration, seed=seed, progress=progress,
        preparation=preparation, holdout=holdout, trust=trust, shapes=shapes,
    )  # fmt: skip


def _file_remarks(slim: Graph) -> tuple[str, ...]:
    """Why an ONNX file of a captured network will take fewer sizes than the module does."""
    origin = slim.note(TorchOrigin)
    if origin is None or not has_symbols(slim):
        return ()
    from secateur.ir.exporters.onnx.write import why_fixed

    why = "a size in it follows the input in a way that files cannot say" if origin.follows else why_fixed(slim)
    sizes = ", ".join(f"{v.name} {list(map(int, v.shape))}" for v in slim.inputs)
    return () if why is None else (f"an ONNX file of it takes the sizes of the example alone ({sizes}): {why}",)


def _law(made: Restructured, slim: Graph, found: Recipe, seed: int) -> Verification:
    """The law for what was cut, against the network after its rewrites. Raises LawError where it does not hold."""
    verification = check(made.graph, slim, found, run=Runner(), seed=seed)
    if not verification.passed:
        raise failure(made.graph.name, verification)
    return dataclasses.replace(verification, reference=AFTER) if made.steps else verification


def _timed(
    dense: Graph, slim: Graph, target: str, seed: int, tell: Progress
) -> tuple[Latency | None, tuple[str, ...]]:  # fmt: skip
    """Both networks side by side on this machine, with warnings for the report; nothing for another target."""
    if target != "native":
        only = f"not timed against the original: of all targets only native is sure to be this machine, not {target}"
        return None, (only,)
    from .timing.never_slower import compare  # code generation, where something is timed

    tell(0, None, "time both")
    return compare(dense, slim, seed)


def _measured(target: str | None, seed: int, runtime: str | None) -> LatencyModel:
    """What allocation measures with. Raises InputError for another machine than this one."""
    if target not in (None, "native"):
        raise InputError(
            f"a budget of time with target '{target}': time is measured on this machine; use target native, or give a "
            "budget in macs"
        )
    from .timing.never_slower import latency_model  # code generation, where something is timed

    return latency_model(seed, runtime)


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


__all__ = [
    "Compiled", "apply", "capture", "check_weights", "compile", "evaluate", "inspect", "load",
    "make_report", "rewrite", "save_onnx", "scores", "trace", "verify",
]  # fmt: skip
