"""``secateur compile`` and ``rewrite``: check, prune, show, write everything at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.distributed import Team
from secateur.ir import InputError
from secateur.ir.files import Job, late_job, text_job
from secateur.ir.frontends.onnx.process import OnnxProcess
from secateur.ir.progress import Progress

from .by_hand import ByHand, by_hand
from .images import ImageOptions
from .shapes import shapes_of
from .terminal import check_outputs, json_out, json_path, limit_of, progress, say, show_report, write_listed

if TYPE_CHECKING:
    from secateur.calibration.images import Preparation
    from secateur.checks.comparison import Reading
    from secateur.compiled import Compiled
    from secateur.policy import Policy
    from secateur.report.report import Report
    from secateur.report.table import Limit


MARK = "{target}"  # in the name of a library: that of its target


@dataclass(frozen=True)
class CompileJob:
    """The options of ``secateur compile``."""

    source: Path
    out: Path | None
    policy: str
    budgets: Mapping[str, str | None]
    calibration: Path | None
    protect: tuple[str, ...]
    round_to: str | None
    recipe: Path | None
    report: Path | None
    json: str | None
    seed: int
    dry_run: bool
    overwrite: bool
    target: str | None = None
    shared_object: Path | None = None
    tune: str | None = None
    records: Path | None = None
    images: ImageOptions | None = None
    holdout: str = "25%"
    trust: bool = False
    shapes: tuple[str, ...] = ()
    layers: str | None = None
    widths: Path | None = None
    sparsity: str | None = None
    block: str | None = None
    latency_table: Path | None = None
    runtime: str | None = None
    keep: str | None = None
    max_error: str | None = None
    precision: str = "f32"
    checkpoint: Path | None = None


def compile_model(job: CompileJob, team: Team) -> None:
    """``secateur compile``: check what can be checked, prune, show, write everything at the end.

    Each process of the team prunes; the first shows and writes.
    """
    given = _checked(job, team)
    with progress(team.speaks) as tell, OnnxProcess() as process:
        if not job.trust:
            process.start()  # it loads its libraries while this process loads its own
        from secateur import api

        done = api.compile(
            job.source, job.policy, calibration=job.calibration, seed=job.seed,
            protect=job.protect, round_to=given.round_to, progress=tell, target=job.target,
            macs=job.budgets["macs"], params=job.budgets["params"], bytes=job.budgets["bytes"],
            latency_ms=job.budgets["latency_ms"], speedup=job.budgets["speedup"], preparation=given.preparation,
            holdout=job.holdout, trust=job.trust, process=process, widths=given.hand.widths, drop=given.hand.drop,
            shapes=given.shapes,
            sparsity=job.sparsity, block=job.block, records=None if job.sparsity is None else job.records,
            tune=None if job.sparsity is None else job.tune, latency_table=job.latency_table,
            runtime=job.runtime, keep=job.keep, max_error=job.max_error, checkpoint=job.checkpoint,
        )  # fmt: skip
        team.agree(done.recipe.to_json)
        if not team.speaks:
            return
        report, lines = _write(job, given, done, tell, process)
    show_report(report, given.limit)
    json_out(report, job.json)
    for line in (*_this_machine(job, given.policy, report), *lines):
        say(line)


@dataclass(frozen=True)
class _Given:
    """The options whose text means something else."""

    policy: Policy
    preparation: Preparation | None
    hand: ByHand
    round_to: int | str | None
    shapes: dict[str, tuple[int, ...]]
    limit: Limit


def _checked(job: CompileJob, team: Team) -> _Given:
    """Everything that can be wrong before the model is read. Raises InputError."""
    from secateur.arguments import goal_of, table_of
    from secateur.calibration.holdout import share_of
    from secateur.passes.allocate import LANES
    from secateur.policy import Policy
    from secateur.zeros import sparse_of

    preparation = job.images.parsed() if job.images is not None else None
    share_of(job.holdout)
    pages = [p for p in (job.report, json_path(job.json)) if p is not None]
    extras = [*(p for p in (job.recipe, _plain(job.shared_object)) if p is not None), *pages]
    if job.shared_object is None and (job.tune or job.records):
        raise InputError("--tune and --records measure kernels for a library; name one with --library OUT.so")
    if job.shared_object is None and job.precision != "f32":
        raise InputError(
            f"--precision {job.precision} says what a library multiplies in; name one with --library OUT.so. OUT.onnx "
            "stays in the precision of IN.onnx"
        )
    if job.out is None and not job.dry_run:
        raise InputError("OUT.onnx is missing: name the file to write; only --dry-run does without")
    policy = Policy.parse(job.policy)
    libraries = _libraries(job, policy)
    extras += [path for path in libraries.values() if path != job.shared_object]
    if libraries and not job.dry_run:
        _check_linkers(job, libraries)
    check_outputs(job.source, job.out, extras, job.overwrite, kept=pages if job.dry_run else None)
    if job.calibration is not None and not job.calibration.exists():
        raise InputError(f"--calibration: there is no '{job.calibration}'; check the path")
    sparse_of(job.sparsity, job.block, False, LANES)
    if job.keep is not None or job.max_error is not None:
        others: dict[str, object] = {"params": job.budgets["params"], "bytes": job.budgets["bytes"]}
        others |= {"widths": job.widths, "sparsity": job.sparsity}
        goal_of(job.keep, job.max_error, job.calibration is not None, others)
    for kind, value in job.budgets.items():
        if value is not None:
            policy = policy.with_budget(kind, value)
    table_of(job.latency_table, LANES, policy.timed and job.widths is None, job.runtime)
    if team.size > 1 and (job.target == "native" or (policy.timed and job.latency_table is None)):
        raise InputError(
            "processes that share a machine cannot time a network: leave out --latency-ms, --speedup and --target "
            "native, or start one process without torchrun"
        )
    return _Given(
        policy, preparation, by_hand(job.widths), _round_to(job.round_to), shapes_of(job.shapes), limit_of(job.layers)
    )


def _check_linkers(job: CompileJob, names: Iterable[str]) -> None:
    """Raises InputError where a linker for one of these targets is missing: before anything is computed."""
    from secateur.codegen.library import linker  # a tenth of a second that commands without a library do not need
    from secateur.codegen.targets import target_for

    for name in names:
        linker(target_for(name, job.precision))


def _this_machine(job: CompileJob, policy: Policy, report: Report) -> list[str]:
    """A line where the result would be another on another machine: widths that follow the vectors of this one."""
    from secateur.policy import Policy

    follows = job.round_to in (None, "auto") and policy.round_to == "auto" and job.target == "native"
    if not follows or report.budget is None or any("widths are multiples" in remark for remark in report.remarks):
        return []
    width = Policy.parse(report.policy).round_to
    return [f"widths are multiples of {width}, as many as a vector of this machine holds; --round-to {width} gives the "
            "same on any"]  # fmt: skip


def _plain(path: Path | None) -> Path | None:
    """The file of a library, where its name does not depend on the target."""
    return None if path is None or MARK in path.name else path


def _libraries(job: CompileJob, policy: Policy) -> dict[str, Path]:
    """By target, the file of each library that is asked for: --library's name, with the target where it says so.

    Raises InputError where several would have one name.
    """
    from secateur.arguments import targets_of

    if job.shared_object is None:
        return {}
    names = targets_of(job.target) or policy.targets or ("native",)
    if len(names) > 1 and MARK not in job.shared_object.name:
        raise InputError(
            f"--library {job.shared_object}: {len(names)} targets need as many files; write {MARK} in the name, as in "
            f"{job.shared_object.stem}-{MARK}{job.shared_object.suffix}"
        )
    place = job.shared_object
    return {name: place.with_name(place.name.replace(MARK, name.replace(":", "-"))) for name in names}


def _write(
    job: CompileJob, given: _Given, done: Compiled, tell: Progress, process: OnnxProcess
) -> tuple[Report, list[str]]:
    """Build the library if one is asked for, and write all files; of a dry run the report alone.

    Returns the report, which then lists what the library says too, and a line for each file.
    """
    from secateur.calibration.load import load_calibration
    from secateur.checks.reading import checked_jobs
    from secateur.report.html import page

    report, writes = done.report, not job.dry_run
    jobs: list[Job] = []
    written: list[Reading] = []
    if job.out is not None and writes:
        jobs, written = checked_jobs(done.graph, job.out, job.trust, process, done.report.reading)
    libraries = _libraries(job, given.policy) if writes else {}
    data = None
    if libraries and job.precision != "f32" and job.calibration is not None:
        data = load_calibration(job.calibration, done.graph, given.preparation)[0]
    if libraries:
        from secateur.codegen.emit.loading import load_tvm

        load_tvm()
    for name, place in libraries.items():
        tell(0, None, "build the library" if len(libraries) == 1 else f"build the library for {name}")
        built = done.build(
            name, tune=job.tune, records=job.records, progress=tell, precision=job.precision, calibration=data
        )
        jobs.append((place, built.write))
        of = "library" if len(libraries) == 1 else f"library for {name}"
        notes = (f"{of}: {note}" for note in built.metadata.notes)
        report = dataclasses.replace(report, remarks=(*report.remarks, *notes))
    if job.recipe is not None and writes:
        jobs.append(text_job(job.recipe, done.recipe.to_json()))

    def final() -> Report:
        """The report with what was found of the file, which is written first."""
        return dataclasses.replace(report, written=written[0]) if written else report

    if job.report is not None:
        jobs.append(late_job(job.report, lambda: page(final())))
    target = json_path(job.json)
    if target is not None:
        jobs.append(late_job(target, lambda: final().to_json()))
    tell(0, None, "write")
    lines = write_listed(jobs)
    if job.dry_run:
        lines.append(f"nothing{' else' if jobs else ''} was written (--dry-run)")
    return final(), lines


def _round_to(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"--round-to {text}: give 'auto' or a whole number from 1 up")
    return int(text)
