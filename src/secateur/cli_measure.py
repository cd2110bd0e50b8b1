"""``secateur bench``: the table of timings."""

from __future__ import annotations

import json as encoder
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from secateur.ir.files import write_text

from .cli_shapes import shapes_of
from .measure import Timing, measure, named
from .models import load
from .trail import capture_remarks


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
    graphs = named(models, lambda path: load(path, shapes=given))
    for name, graph in graphs.items():
        for remark in capture_remarks(graph):
            typer.echo(f"{name}: {remark}", err=True)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("measure", total=repeats)
        timings = measure(
            graphs, runtimes, threads=threads, repeats=repeats, seed=seed,
            progress=lambda done, total: bar.update(task, completed=done),
        )  # fmt: skip
    _show(timings, console)
    text = encoder.dumps([asdict(t) for t in timings], indent=1)
    if json == "-":
        typer.echo(text)
    elif json is not None:
        write_text(json, text)


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
