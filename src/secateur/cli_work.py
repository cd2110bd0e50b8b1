"""What the commands do."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect as reflect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from secateur.ir import InputError, LawError

from .files import WHY, check_writable, same_file, write_all
from .processes import Team

if TYPE_CHECKING:
    from .report import Report


@dataclass(frozen=True)
class CompileJob:
    """The options of ``secateur compile``."""

    source: Path
    out: Path
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


def compile_model(job: CompileJob, team: Team) -> None:
    """``secateur compile``: check what can be checked, prune, show, write everything at the end.

    Each process of the team prunes; the first shows and writes.
    """
    from .policy import Policy, amount

    extras = [p for p in (job.recipe, job.report, _json_path(job.json), job.shared_object) if p is not None]
    if job.shared_object is None and (job.tune or job.records):
        raise InputError("--tune and --records measure kernels for a library; name one with --library OUT.so")
    _check_outputs(job.source, job.out, extras, job.overwrite, job.dry_run)
    if job.calibration is not None and not job.calibration.exists():
        raise InputError(f"--calibration: there is no '{job.calibration}'; check the path")
    Policy.parse(job.policy)  # a mistake in it should show before the model is read
    for kind, value in job.budgets.items():
        if value is not None:
            amount(kind, value)
    round_to = _round_to(job.round_to)
    if team.size > 1 and (job.target == "native" or Policy.parse(job.policy).budget[0] == "latency_ms" or
                          job.budgets["latency_ms"] is not None):  # fmt: skip
        raise InputError("processes that share a machine cannot time a network: leave out --latency-ms and --target "
                         "native, or start one process without torchrun")  # fmt: skip

    from . import api

    with _progress(team.speaks) as tell:
        done = api.compile(
            job.source, job.policy, calibration=job.calibration, seed=job.seed,
            protect=job.protect, round_to=round_to, progress=tell, target=job.target,
            macs=job.budgets["macs"], params=job.budgets["params"], bytes=job.budgets["bytes"],
            latency_ms=job.budgets["latency_ms"],
        )  # fmt: skip
        team.agree(done.recipe.to_json())
        if not team.speaks:
            return
        report = done.report if job.dry_run else _write(job, done, tell)
    _show(report)
    _json_out(report, job.json)
    where = "nothing was written (--dry-run)" if job.dry_run else f"wrote {job.out}"
    typer.echo(where, err=True)


def _write(job: CompileJob, done: Any, tell: Callable[[str], None]) -> Report:
    """Build the library if one is asked for, and write all files; the report then lists what the library says too."""
    from secateur.ir.exporters.onnx import save

    jobs: list[tuple[str | Path, Callable[[Path], None]]] = [(job.out, lambda path: save(done.graph, path))]
    report: Report = done.report
    if job.shared_object is not None:
        tell("build the library")
        built = done.build(
            job.target or "native", tune=job.tune, records=job.records,
            progress=lambda done, total, what: tell(f"time kernels {done}/{total} {what}"),
        )  # fmt: skip
        jobs.append((job.shared_object, built.save))
        notes = (f"library: {note}" for note in built.metadata.notes)
        report = dataclasses.replace(report, remarks=(*report.remarks, *notes))
    if job.recipe is not None:
        jobs.append((job.recipe, lambda path: write_text(path, done.recipe.to_json())))
    if job.report is not None:
        jobs.append((job.report, report.to_html))
    target = _json_path(job.json)
    if target is not None:
        jobs.append((target, lambda path: write_text(path, report.to_json())))
    tell("write")
    write_all(jobs)
    return report


def inspect_model(source: Path, protect: tuple[str, ...], json: str | None) -> None:
    """``secateur inspect``."""
    target = _json_path(json)
    if target is not None:
        _check_outputs(source, target, [], False, False, ending=None)

    from . import api

    with _progress() as tell:
        tell("read the model")
        report = api.inspect(source, protect=protect)
    _show(report, groups=True)
    _json_out(report, json)
    if target is not None:
        write_all([(target, lambda path: write_text(path, report.to_json()))])


def verify_models(original: Path, slim: Path, recipe: Path, inputs: tuple[Path, ...], seed: int) -> None:
    """``secateur verify``: exit code 1 where the law fails."""
    from . import api
    from .passes.recipe import Recipe
    from .report_text import law
    from .rewriting import of_recipe

    known = Recipe.load(recipe)
    given = [_arrays(path) for path in inputs]
    with _progress() as tell:
        tell("check the law")
        found = api.verify(original, slim, known, seed=seed, given=given)
    typer.echo(law(dataclasses.asdict(found)), err=True)
    _, cutting = of_recipe(known)
    if cutting.rewrites:
        typer.echo(f"checked on the cut itself: {', '.join(cutting.rewrites)} changed its weights afterwards", err=True)
    if not found.passed:
        raise LawError(f"'{slim}' does not compute what '{original}' does without the channels that '{recipe}' drops")


def apply_recipe(recipe: Path, source: Path, out: Path, overwrite: bool) -> None:
    """``secateur apply``: replay, check the law, write."""
    _check_outputs(source, out, [], overwrite, False)
    if same_file(recipe, out):
        raise InputError(f"'{out}' is the recipe itself; name another output")

    from . import api
    from .models import Runner
    from .passes.law import check
    from .passes.recipe import Recipe

    known = Recipe.load(recipe)
    with _progress() as tell:
        tell("read the model")
        dense = api.load(source)
        api.check_weights(dense)
        tell("apply the recipe")
        slim = api.apply(known, dense)
        tell("check the law")
        found = check(api.rewritten(known, dense), slim, known, run=Runner())
        if not found.passed:
            raise LawError(
                f"the recipe '{recipe}' on '{source}' gives a network that differs by {found.max_rel_err:.1e} from the "
                "masked original; nothing was written"
            )
        tell("write")
        api.save_onnx(slim, out)
    typer.echo(f"wrote {out}; law holds ({found.law}), max relative error {found.max_rel_err:.1e}", err=True)


def list_passes(name: str | None) -> None:
    """``secateur passes [NAME]``: on stdout."""
    from .passes import PASSES
    from .passes.pipeline import print_value

    if name is not None and name not in PASSES:
        import difflib

        near = difflib.get_close_matches(name, list(PASSES), n=3, cutoff=0.4)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        raise InputError(f"there is no pass '{name}'{hint}; `secateur passes` lists them")
    for made in PASSES.values() if name is None else (PASSES[name],):
        options = [f"{f.name}={print_value(f.default)}" for f in dataclasses.fields(made)]
        text = reflect.getdoc(made) or ""
        typer.echo(made.name + (f"{{{', '.join(options)}}}" if options else ""))
        for line in text.splitlines()[:1] if name is None else text.splitlines():
            typer.echo(f"    {line}".rstrip())


def _check_outputs(
    source: Path, out: Path, extras: list[Path], overwrite: bool, dry_run: bool, ending: str | None = ".onnx"
) -> None:
    """Everything about paths that can be wrong before the work starts."""
    if not source.exists():
        raise InputError(f"there is no file '{source}'; check the path")
    if source.is_dir():
        raise InputError(f"'{source}' is a folder; name the .onnx file in it")
    if ending is not None and out.suffix.lower() != ending:
        raise InputError(f"cannot write '{out}': results are written as ONNX; give the file the ending .onnx")
    if same_file(source, out) and not (overwrite and ending is not None):
        raise InputError(
            f"'{out}' is the input itself; name another output, or say --overwrite to replace it at the end"
        )
    for index, path in enumerate(extras):
        if any(same_file(path, other) for other in (source, out, *extras[:index])):
            raise InputError(f"'{path}' is named twice, or is the input; give each output a file of its own")
    for path in () if dry_run else (out, *extras):
        check_writable(path)


def _round_to(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"--round-to {text}: give 'auto' or a whole number from 1 up")
    return int(text)


def _json_path(json: str | None) -> Path | None:
    return None if json in (None, "-") else Path(str(json))


def _json_out(report: Report, json: str | None) -> None:
    if json == "-":
        try:
            sys.stdout.write(report.to_json())
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            why = WHY.get(error.errno or 0, error.strerror or str(error))
            raise InputError(f"cannot write the report to standard output: {why}") from error


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _arrays(path: Path) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"--input '{path}': no .npz file of arrays by input name ({error})") from error


def _show(report: Report, groups: bool = False) -> None:
    from .report_text import show, text

    console = Console(stderr=True)
    if console.is_terminal:
        show(report, console, groups=groups)
    else:
        typer.echo(text(report, groups=groups), err=True)


@contextlib.contextmanager
def _progress(shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A line with the stage and the time it takes, on a terminal only."""
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda stage: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("start", total=None)
        yield lambda stage: bar.update(task, description=stage)
