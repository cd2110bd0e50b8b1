"""Options and help of the commands that make and check a slim network; what they do loads when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Bgr,
    Calibration,
    Debug,
    DryRun,
    Holdout,
    Json,
    Layers,
    Mean,
    Out,
    Overwrite,
    Page,
    Precision,
    Protect,
    RecipeOut,
    Scale,
    Seed,
    Shape,
    Size,
    Source,
    Std,
    Trust,
)


def compile_command(
    source: Source,
    out: Out = None,
    policy: Annotated[
        str,
        typer.Option(
            metavar="P",
            help="A criterion (l1, taylor), a line of passes (separable,l1,knapsack), a TOML file, or none.",
        ),
    ] = "l1",
    macs: Annotated[
        str | None, typer.Option(metavar="50%", help="MACs that remain at most: 50%, 120M; 50% without any budget.")
    ] = None,
    params: Annotated[str | None, typer.Option(metavar="50%", help="Parameters that remain at most.")] = None,
    bytes_: Annotated[
        str | None, typer.Option("--bytes", metavar="50%", help="Bytes of weights at most: 50%, 5MB.")
    ] = None,
    latency_ms: Annotated[
        str | None, typer.Option("--latency-ms", metavar="12.5", help="Milliseconds of a run at most, measured here.")
    ] = None,
    speedup: Annotated[
        str | None, typer.Option(metavar="2x", help="Times as fast as IN.onnx at least, measured here.")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="99%", help="As small as it gets while so many answers stay, judged on --calibration."),
    ] = None,
    max_error: Annotated[
        str | None,
        typer.Option(
            "--max-error", metavar="1%", help="The same for outputs that are no classes: how far they differ."
        ),
    ] = None,
    latency_table: Annotated[
        Path | None,
        typer.Option(
            metavar="T.csv", help="Milliseconds by layer shape, in place of measuring (secateur bench --table)."
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(metavar="R", help="Where a budget of time is measured: secateur, onnxruntime, openvino."),
    ] = None,
    calibration: Calibration = None,
    mean: Mean = None,
    std: Std = None,
    bgr: Bgr = False,
    scale: Scale = None,
    size: Size = None,
    holdout: Holdout = "25%",
    protect: Protect = None,
    widths: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML: [widths] or [drop] by layer, in place of a budget.")
    ] = None,
    round_to: Annotated[str | None, typer.Option(metavar="auto|N", help="Widths fill vectors of this size.")] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="native|T[,T]", help="Follow its vectors; native: time it next to the original."),
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option(metavar="OUT.so", help="Also write a library of it; of several targets OUT-{target}.so."),
    ] = None,
    tune: Annotated[str | None, typer.Option(metavar="60s", help="How long its kernels may be measured.")] = None,
    records: Annotated[Path | None, typer.Option(metavar="DB", help="File that keeps what was measured.")] = None,
    sparsity: Annotated[
        str | None, typer.Option(metavar="70%", help="Zeros in the weights of each layer, after the cut.")
    ] = None,
    block: Annotated[
        str | None, typer.Option(metavar="B", help="Where zeros stand: auto, kernels, irregular, darb, bmwm, 2:4, 8x1.")
    ] = None,
    precision: Precision = "f32",
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where distill keeps its state, to go on from after a kill.")
    ] = None,
    recipe: RecipeOut = None,
    report: Page = None,
    json_: Json = None,
    layers: Layers = None,
    shape: Shape = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Prune IN.onnx under a budget and write OUT.onnx, checked against the original.

    A budget is what remains: --macs 50% leaves at most half of the multiply-accumulates.
    Exit codes: 0 done, 1 budget missed or a check failed (nothing is written), 2 unusable input.
    """
    from . import compile as cli_compile
    from .errors import guard
    from .images import ImageOptions

    with guard(debug, several=True) as team:
        job = cli_compile.CompileJob(
            source, out, policy,
            {"macs": macs, "params": params, "bytes": bytes_, "latency_ms": latency_ms, "speedup": speedup},
            calibration, tuple(protect or ()), round_to, recipe, report, json_, seed, dry_run, overwrite, target,
            library, tune, records, ImageOptions(mean, std, bgr, scale, size), holdout, trust, tuple(shape or ()),
            layers, widths, sparsity, block, latency_table, runtime, keep, max_error, precision, checkpoint,
        )  # fmt: skip
        cli_compile.compile_model(job, team)


def rewrite_command(
    source: Source,
    passes: Annotated[
        str, typer.Option(metavar="SPEC", help="Rewrites, as in 'separable{rank=1},fold_bn'.", show_default=False)
    ],
    out: Out = None,
    calibration: Calibration = None,
    mean: Mean = None,
    std: Std = None,
    bgr: Bgr = False,
    scale: Scale = None,
    size: Size = None,
    holdout: Holdout = "25%",
    recipe: RecipeOut = None,
    report: Page = None,
    json_: Json = None,
    layers: Layers = None,
    shape: Shape = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
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
        budgets = dict.fromkeys(("macs", "params", "bytes", "latency_ms", "speedup"))
        job = cli_compile.CompileJob(
            source, out, passes, budgets, calibration, (), None, recipe, report, json_, seed, dry_run, overwrite,
            images=ImageOptions(mean, std, bgr, scale, size), holdout=holdout, trust=trust,
            shapes=tuple(shape or ()), layers=layers,
        )  # fmt: skip
        cli_compile.compile_model(job, team)


def inspect_command(
    source: Source,
    protect: Protect = None,
    shape: Shape = None,
    json_: Json = None,
    layers: Layers = None,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Show layers, cost, channel groups with the reasons of their ties, and what is frozen and why."""
    from . import commands as cli_work
    from .errors import guard

    with guard(debug):
        cli_work.inspect_model(source, tuple(protect or ()), json_, tuple(shape or ()), layers, trust)


def verify_command(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL.onnx", show_default=False)],
    slim: Annotated[Path, typer.Argument(metavar="SLIM.onnx", show_default=False)],
    recipe: Annotated[Path, typer.Option(metavar="R.json", help="What was kept.", show_default=False)],
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", metavar="FILE.npz", help="Inputs by name, next to the random ones.")
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


def passes_command(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One pass.", show_default=False)] = None,
    debug: Debug = False,
) -> None:
    """List every pass with its options and its paper."""
    from .errors import guard

    with guard(debug):
        from .passes import list_passes

        list_passes(name)
