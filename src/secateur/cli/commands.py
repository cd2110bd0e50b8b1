"""What the commands do that look at models and recipes: ``inspect``, ``verify`` and ``apply``."""

from __future__ import annotations

from pathlib import Path

from secateur.ir import InputError, LawError
from secateur.ir.files import same_file, text_job

from .shapes import shapes_of
from .terminal import check_outputs, json_out, json_path, limit_of, progress, say, show_report, write_listed


def inspect_model(
    source: Path,
    protect: tuple[str, ...],
    json: str | None,
    shapes: tuple[str, ...],
    layers: str | None = None,
    trust: bool = False,
) -> None:
    """``secateur inspect``."""
    target, given, limit = json_path(json), shapes_of(shapes), limit_of(layers)
    if target is not None:
        check_outputs(source, target, [], False, ending=None)

    from secateur import api

    with progress() as tell:
        tell(0, None, "read the model")
        report = api.inspect(source, protect=protect, trust=trust, shapes=given)
    show_report(report, limit, groups=True, page=False)
    json_out(report, json)
    if target is not None:
        for line in write_listed([text_job(target, report.to_json())]):
            say(line)


def verify_models(original: Path, slim: Path, recipe: Path, inputs: tuple[Path, ...], seed: int, trust: bool) -> None:
    """``secateur verify``: exit code 1 where the law fails."""
    from secateur import api
    from secateur.passes.recipe import Recipe
    from secateur.report.text import law

    known = Recipe.load(recipe)
    with progress() as tell:
        tell(0, None, "check the law")
        found = api.verify(original, slim, known, seed=seed, given=inputs, trust=trust)
    say(law(found))
    if not found.passed:
        why = found.reason or f"it differs by {found.max_rel_err:.1e} from the {found.reference}"
        raise LawError(f"'{slim}' is not what '{recipe}' makes of '{original}': {why}")


def apply_recipe(recipe: Path, source: Path, out: Path, overwrite: bool, trust: bool = False) -> None:
    """``secateur apply``: replay, check the law, write."""
    check_outputs(source, out, [], overwrite)
    if same_file(recipe, out):
        raise InputError(f"'{out}' is the recipe itself; name another output")

    from secateur import api
    from secateur.checks.reading import checked_jobs
    from secateur.report.text import law

    with progress() as tell:
        done = api.apply(recipe, source, progress=tell, trust=trust)
        tell(0, None, "write")
        lines = write_listed(checked_jobs(done.graph, out, trust)[0])
    for remark in done.report.remarks:
        say(remark)
    if done.report.verification is not None:
        say(law(done.report.verification))
    for line in lines:
        say(line)
