"""Options and help of the commands that build, measure and run libraries; what they do loads when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Batch, Debug, Json, Key, Precision, Seed, Shape, Source, Target, Threads, Tracker, Trust


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
    compact: Annotated[
        bool, typer.Option("--compact", help="No larger than the weights: without algorithms that transform them.")
    ] = False,
    precision: Precision = "f32",
    calibration: Annotated[
        Path | None, typer.Option(metavar="DIR|FILE.npz", help="Data on which bf16 is compared with f32.")
    ] = None,
    trust: Trust = False,
    shape: Shape = None,
    debug: Debug = False,
) -> None:
    """Compile IN.onnx to one file with code, weights and metadata, at the sizes the model states."""
    from .errors import guard

    with guard(debug):
        from .library import build_model

        build_model(
            source, out, target, threads, records, tune, batch, tuple(shape or ()), trust, show_plan, compact,
            precision, calibration,
        )  # fmt: skip


def tune_command(
    source: Source,
    records: Annotated[Path, typer.Option(metavar="DB", help="File of records; it grows.", show_default=False)],
    target: Target = "native",
    time: Annotated[str, typer.Option(metavar="60s", help="How long.")] = "60s",
    threads: Threads = 1,
    batch: Batch = None,
    shape: Shape = None,
    tracker: Tracker = None,
    key: Key = None,
    candidates: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write what to measure there, with a script for the device.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Read what that script has measured into DB.")
    ] = None,
    precision: Precision = "f32",
    debug: Debug = False,
) -> None:
    """Measure the kernels of IN.onnx that DB has no record of. Ctrl-C keeps what was measured."""
    from .errors import guard

    with guard(debug):
        from .library import tune_elsewhere, tune_model

        if candidates is not None or results is not None:
            tune_elsewhere(
                source, target, threads, records, batch, tuple(shape or ()), candidates, results, tracker, precision
            )
        else:
            tune_model(source, target, threads, records, time, batch, tuple(shape or ()), tracker, key, precision)


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


def bench_command(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN.onnx [OTHER.onnx]...", help="Models and libraries, the original first.", show_default=False
        ),
    ],
    runtimes: Annotated[
        str, typer.Option(help="Which, with commas: secateur, onnxruntime, openvino, torch.")
    ] = "onnxruntime",
    threads: Annotated[int, typer.Option(help="Threads that each run may use.")] = 1,
    repeats: Annotated[int, typer.Option(help="Timed runs of each model in each runtime.")] = 20,
    shape: Shape = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="T.csv", help="Write the first model's layers by width, in the first runtime, instead."),
    ] = None,
    tracker: Tracker = None,
    key: Key = None,
    target: Annotated[str | None, typer.Option(metavar="T", help="With --tracker: what these boards are.")] = None,
    records: Annotated[
        Path | None, typer.Option(metavar="DB", help="With --tracker: it keeps the measurements.")
    ] = None,
    time: Annotated[str, typer.Option(metavar="60s", help="With --tracker: how long.")] = "60s",
    seed: Seed = 0,
    json_: Json = None,
    debug: Debug = False,
) -> None:
    """Time models side by side: interleaved repeats, medians, ratios to the first model."""
    from .bench import TableJob, bench_models, bench_table
    from .errors import guard

    with guard(debug):
        names = tuple(r.strip() for r in runtimes.split(","))
        job = TableJob(names[0], tracker, key, target, records, time)
        job.check(table)
        if table is not None:
            bench_table(models[0], table, job, seed, tuple(shape or ()))
            return
        bench_models(models, names, threads, repeats, seed, json_, tuple(shape or ()))
