"""``secateur bench``: the table of timings."""

from __future__ import annotations

import contextlib
import json as encoder
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from secateur.arguments import lanes_of
from secateur.capture import load
from secateur.codegen.parted import load_library
from secateur.ir import Graph
from secateur.ir.files import check_writable, text_job
from secateur.ir.frontends.onnx.original import OnnxOriginal
from secateur.ir.frontends.onnx.process import OnnxProcess, Refused
from secateur.ir.numeric import random_inputs
from secateur.report.collect import capture_remarks
from secateur.sizes import Resizing
from secateur.timing.measured_table import measured_table
from secateur.timing.runtimes import Timing, measure, named

from .shapes import shapes_of
from .terminal import progress, say, screen, write_listed

BUILT = frozenset({".so", ".dylib", ".dll"})  # how files of libraries end


def bench_models(
    models: Sequence[Path],
    runtimes: tuple[str, ...],
    threads: int,
    repeats: int,
    seed: int,
    json: str | None,
    shapes: tuple[str, ...],
) -> None:
    """Load, time, print. ``json`` is a file for the timings, or - for stdout."""
    given = shapes_of(shapes)
    found = named(models, lambda path: load_library(path) if path.suffix in BUILT else load(path, shapes=given))
    files = {path: (name, m) for path, (name, m) in zip(models, found.items(), strict=True) if isinstance(m, Graph)}
    for name, graph in files.values():
        for remark in capture_remarks(graph):
            say(f"{name}: {remark}")
    _first_runs(list(files), dict(files.values()), seed)
    with progress() as tell:
        timings = measure(found, runtimes, threads=threads, repeats=repeats, seed=seed, progress=tell)
    _show(timings, screen())
    text = encoder.dumps([asdict(t) for t in timings], indent=1)
    if json == "-":
        typer.echo(text)
    elif json is not None:
        for line in write_listed([text_job(Path(json), text)]):
            say(line)


def bench_table(model: Path, runtime: str, seed: int, out: Path, shapes: tuple[str, ...]) -> None:
    """``secateur bench --table``: what the model's layers take at several widths, for ``compile --latency-table``."""
    check_writable(out)
    graph = load(model, shapes=shapes_of(shapes))
    _first_runs([model], {model.name: graph}, seed)
    with progress() as tell:
        table = measured_table(graph, runtime, lanes_of(None), seed, tell)
    for line in write_listed([text_job(out, table.text())]):
        say(f"{line}: {len(table.rows)} layers in {runtime}, {table.rest:.3g} ms of the network in none")


def _first_runs(models: Sequence[Path], graphs: Mapping[str, Graph], seed: int) -> None:
    """Run each file in a process of its own before it is timed in this one: one that crashes its runtime is a sentence.

    Raises InputError there. A file that ONNX Runtime refuses is refused again, by the runtimes that are asked for.
    """
    with OnnxProcess() as process:
        for path, (name, graph) in zip(models, graphs.items(), strict=True):
            feed = random_inputs(graph, seed)
            with contextlib.suppress(Refused):
                OnnxOriginal(path, graph, process, f"'{name}'").run(feed, Resizing(graph).seconds_of(feed))


def _show(timings: Sequence[Timing], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("runtime")
    for name in ("threads", "median ms", "p10", "p90", "times as fast"):
        table.add_column(name, justify="right")
    for t in timings:
        numbers = (f"{t.median:.2f}", f"{t.p10:.2f}", f"{t.p90:.2f}", f"{t.ratio:.2f}")
        table.add_row(t.model, t.runtime, str(t.threads), *numbers)
    console.print(table)
