"""The command line: ``secateur compile | rewrite | inspect | verify | apply | build | tune | run | bench | passes``.

Only the front of it: names, options and help. The work is in ``cli_compile``, ``cli_work`` and their sisters, loaded
when a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur import __version__

from .options import (  # fmt: skip
    Batch,
    Bgr,
    Calibration,
    Debug,
    Holdout,
    Json,
    Mean,
    Overwrite,
    Protect,
    Scale,
    Seed,
    Shape,
    Size,
    Source,
    Std,
    Target,
    Threads,
    Trust,
)

app = typer.Typer(
    name="secateur", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

LATER = "Not available in this version."


@app.callback(invoke_without_command=True)
def front(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Make trained networks smaller, and prove that they still compute the same."""
    if version:
        typer.echo(f"secateur {__version__}")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command("compile", short_help="Prune a model under a budget, and check the result.")
def compile_command(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The slim model.", show_default=False)],
    policy: Annotated[str, typer.Option(help="A preset (l1, none), a spec line, or a TOML file.")] = "l1",
    macs: Annotated[str | None, typer.Option(metavar="50%", help="MACs that remain at most: 50%, 120M.")] = None,
    params: Annotated[str | None, typer.Option(metavar="50%", help="Parameters that remain at most.")] = None,
    bytes_: Annotated[str | None, typer.Option("--bytes", metavar="50%", help="Bytes of weights at most.")] = None,
    latency_ms: Annotated[
        str | None, typer.Option("--latency-ms", metavar="12.5", help="Milliseconds of a run at most, measured here.")
    ] = None,
    calibration: Calibration = None,
    mean: Mean = None,
    std: Std = None,
    bgr: Bgr = False,
    scale: Scale = None,
    size: Size = None,
    holdout: Holdout = "25%",
    protect: Protect = None,
    round_to: Annotated[str | None, typer.Option(metavar="auto|N", help="Widths fill vectors of this size.")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="native|T", help="Follow its vectors; native: time it beside the original.")
    ] = None,
    library: Annotated[Path | None, typer.Option(metavar="OUT.so", help="Also write a library of it.")] = None,
    tune: Annotated[str | None, typer.Option(metavar="60s", help="How long its kernels may be measured.")] = None,
    records: Annotated[Path | None, typer.Option(metavar="DB", help="File that keeps what was measured.")] = None,
    sparsity: Annotated[str | None, typer.Option(help=LATER, hidden=True)] = None,
    block: Annotated[str | None, typer.Option(help=LATER, hidden=True)] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="OUT.json", help="Write what was kept, to replay it.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="OUT.html", help="Write the report as a page.")] = None,
    json_: Json = None,
    shape: Shape = None,
    seed: Seed = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do it all and write nothing.")] = False,
    overwrite: Overwrite = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Prune IN.onnx under a budget and write OUT.onnx, checked against the original.

    A budget is what remains: --macs 50% leaves at most half of the multiply-accumulates.
    Exit codes: 0 done, 1 budget missed or a check failed (nothing is written), 2 unusable input.
    """
    from . import compile as cli_compile
    from .errors import guard, refuse
    from .images import ImageOptions

    with guard(debug, several=True) as team:
        refuse({"--sparsity": sparsity, "--block": block})
        job = cli_compile.CompileJob(
            source, out, policy, {"macs": macs, "params": params, "bytes": bytes_, "latency_ms": latency_ms},
            calibration, tuple(protect or ()), round_to, recipe, report, json_, seed, dry_run, overwrite, target,
            library, tune, records, ImageOptions(mean, std, bgr, scale, size), holdout, trust, tuple(shape or ()),
        )  # fmt: skip
        cli_compile.compile_model(job, team)


@app.command("rewrite", short_help="Structural rewrites alone: separable, grouped, low_rank, fold_bn ...")
def rewrite_command(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The rewritten model.", show_default=False)],
    passes: Annotated[
        str, typer.Option(metavar="SPEC", help="Rewrites, as in 'separable{rank=1},fold_bn'.", show_default=False)
    ],
    calibration: Calibration = None,
    mean: Mean = None,
    std: Std = None,
    bgr: Bgr = False,
    scale: Scale = None,
    size: Size = None,
    holdout: Holdout = "25%",
    recipe: Annotated[Path | None, typer.Option(metavar="OUT.json", help="Write what was done, to replay it.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="OUT.html", help="Write the report as a page.")] = None,
    json_: Json = None,
    shape: Shape = None,
    seed: Seed = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do it all and write nothing.")] = False,
    overwrite: Overwrite = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Rewrite layers of IN.onnx and write OUT.onnx; the report lists each with its error, or why it stayed."""
    from . import compile as cli_compile
    from .errors import guard
    from .images import ImageOptions

    with guard(debug, several=True) as team:
        from secateur.restructure import steps_of

        steps_of(passes)
        budgets = dict.fromkeys(("macs", "params", "bytes", "latency_ms"))
        job = cli_compile.CompileJob(
            source, out, passes, budgets, calibration, (), None, recipe, report, json_, seed, dry_run, overwrite,
            images=ImageOptions(mean, std, bgr, scale, size), holdout=holdout, trust=trust,
            shapes=tuple(shape or ()),
        )  # fmt: skip
        cli_compile.compile_model(job, team)


@app.command("inspect", short_help="Show cost, channel groups, and what is frozen and why.")
def inspect_command(
    source: Source,
    protect: Protect = None,
    shape: Shape = None,
    json_: Json = None,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Show layers, cost, channel groups with the reasons of their ties, and what is frozen and why."""
    from . import commands as cli_work
    from .errors import guard

    with guard(debug):
        cli_work.inspect_model(source, tuple(protect or ()), json_, tuple(shape or ()), trust)


@app.command("verify", short_help="Check a slim model against its original.")
def verify_command(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL.onnx", show_default=False)],
    slim: Annotated[Path, typer.Argument(metavar="SLIM.onnx", show_default=False)],
    recipe: Annotated[Path, typer.Option(metavar="R.json", help="What was kept.", show_default=False)],
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", metavar="FILE.npz", help="Inputs by name, beside the random ones.")
    ] = None,
    seed: Seed = 0,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Check that SLIM equals ORIGINAL with the dropped channels at zero. Exit code 1 if it does not."""
    from . import commands as cli_work
    from .errors import guard

    with guard(debug):
        cli_work.verify_models(original, slim, recipe, tuple(inputs or ()), seed, trust)


@app.command("apply", short_help="Replay a recipe on a model of the same network.")
def apply_command(
    recipe: Annotated[Path, typer.Argument(metavar="R.json", help="A recipe.", show_default=False)],
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The slim model.", show_default=False)],
    overwrite: Overwrite = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Replay a recipe on a model of the same network, for example after fine-tuning; checked as in compile."""
    from . import commands as cli_work
    from .errors import guard

    with guard(debug):
        cli_work.apply_recipe(recipe, source, out, overwrite, trust)


@app.command("build", short_help="Compile a model to a library for this machine or another.")
def build_command(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT.so", help="The library.", show_default=False)],
    target: Target = "native",
    threads: Threads = 1,
    records: Annotated[Path | None, typer.Option(metavar="DB", help="Choices that were measured before.")] = None,
    tune: Annotated[str | None, typer.Option(metavar="60s", help="Measure what DB lacks, for this long.")] = None,
    batch: Batch = None,
    show_plan: Annotated[
        bool, typer.Option("--show-plan", help="Print every kernel of the library, on stdout.")
    ] = False,
    trust: Trust = False,
    shape: Shape = None,
    debug: Debug = False,
) -> None:
    """Compile IN.onnx to one file with code, weights and metadata, at the sizes the model states."""
    from .errors import guard

    with guard(debug):
        from .library import build_model

        build_model(source, out, target, threads, records, tune, batch, tuple(shape or ()), trust, show_plan)


@app.command("tune", short_help="Measure kernels for a model and keep the choices.")
def tune_command(
    source: Source,
    records: Annotated[Path, typer.Option(metavar="DB", help="File of records; it grows.", show_default=False)],
    target: Target = "native",
    time: Annotated[str, typer.Option(metavar="60s", help="How long.")] = "60s",
    threads: Threads = 1,
    batch: Batch = None,
    shape: Shape = None,
    tracker: Annotated[str | None, typer.Option(help=LATER, hidden=True)] = None,
    key: Annotated[str | None, typer.Option(help=LATER, hidden=True)] = None,
    debug: Debug = False,
) -> None:
    """Measure the kernels of IN.onnx that DB has no record of. Ctrl-C keeps what was measured."""
    from .errors import guard, refuse

    with guard(debug):
        refuse({"--tracker": tracker, "--key": key})
        from .library import tune_model

        tune_model(source, target, threads, records, time, batch, tuple(shape or ()))


@app.command("run", short_help="Run a library on .npy files.")
def run_command(
    library: Annotated[Path, typer.Argument(metavar="LIB.so", show_default=False)],
    inputs: Annotated[list[str], typer.Option("--input", metavar="NAME=x.npy", show_default=False)],
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each output there as .npy.")] = None,
    debug: Debug = False,
) -> None:
    """Run LIB.so on the arrays given by input name."""
    from .errors import guard

    with guard(debug):
        from .library import run_library

        run_library(library, inputs, output)


@app.command("bench", short_help="Time models side by side in ONNX Runtime and others.")
def bench_command(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="IN.onnx [OTHER.onnx]...", help="Models, the original first.", show_default=False),
    ],
    runtimes: Annotated[
        str, typer.Option(help="Which, with commas: secateur, onnxruntime, openvino, torch.")
    ] = "onnxruntime",
    threads: Annotated[int, typer.Option(help="Threads that each run may use.")] = 1,
    repeats: Annotated[int, typer.Option(help="Timed runs of each model in each runtime.")] = 20,
    shape: Shape = None,
    seed: Seed = 0,
    json_: Json = None,
    debug: Debug = False,
) -> None:
    """Time models side by side: interleaved repeats, medians, ratios to the first model."""
    from .bench import bench_models
    from .errors import guard

    with guard(debug):
        bench_models(
            models, tuple(r.strip() for r in runtimes.split(",")), threads, repeats, seed, json_, tuple(shape or ())
        )


@app.command("passes", short_help="List every pass with its options.")
def passes_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One pass.", show_default=False)] = None,
    debug: Debug = False,
) -> None:
    """List every pass with its options and its paper."""
    from . import commands as cli_work
    from .errors import guard

    with guard(debug):
        cli_work.list_passes(name)


def main() -> None:
    """The console script."""
    app(prog_name="secateur")


if __name__ == "__main__":
    main()
