"""``secateur bench``: the table of timings."""

from __future__ import annotations

import contextlib
import json as encoder
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from secateur.arguments import lanes_of
from secateur.capture import load
from secateur.checks.sizes import Resizing
from secateur.codegen.emit.loading import load_tvm
from secateur.codegen.parted import load_library
from secateur.codegen.tune.tracker import Tracker
from secateur.deploy import seconds, settled
from secateur.ir import Graph, InputError
from secateur.ir.files import check_writable, text_job
from secateur.ir.frontends.onnx.original import OnnxOriginal
from secateur.ir.frontends.onnx.process import OnnxProcess, Refused
from secateur.ir.numeric import random_inputs
from secateur.report.collect import capture_remarks
from secateur.timing.measured_table import Boards, board_table, measured_table
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


@dataclass(frozen=True)
class TableJob:
    """The options of ``secateur bench --table``; a ``tracker`` stands for its boards instead of ``runtime`` here."""

    runtime: str
    tracker: str | None = None
    key: str | None = None
    target: str | None = None
    records: Path | None = None
    time: str = "60s"

    def check(self, out: Path | None) -> None:
        """Raises InputError for options without their company; ``out``: the table to write, if any."""
        given = {"--tracker": self.tracker, "--key": self.key, "--target": self.target, "--records": self.records}
        named = [option for option, value in given.items() if value is not None]
        if named and (out is None or self.tracker is None):
            raise InputError(f"bench {named[0]}: boards are measured with --table T.csv and --tracker HOST:PORT")
        if named and self.records is None:
            raise InputError(f"--tracker {self.tracker}: say with --records DB which file keeps what is measured")

    def boards(self) -> Boards | None:
        """Where kernels are measured, if not here. Raises InputError."""
        if self.tracker is None or self.records is None:
            return None
        tracker = Tracker.parse(self.tracker, self.key or "")
        return Boards(tracker, self.target or "native", self.records, seconds(self.time))


def bench_table(model: Path, out: Path, job: TableJob, seed: int, shapes: tuple[str, ...]) -> None:
    """``secateur bench --table``: what the model's layers take at several widths, for ``compile --latency-table``."""
    check_writable(out)
    boards, lanes = job.boards(), lanes_of(job.target)
    if boards is not None:
        count = boards.tracker.check()
        say(f"measuring on {count} board{'s' if count > 1 else ''} under the key '{job.key}' at {job.tracker}")
    graph = load(model, shapes=shapes_of(shapes))
    if boards is None:
        _first_runs([model], {model.name: graph}, seed)
    else:
        load_tvm()
    with progress() as tell:
        table = (
            measured_table(graph, job.runtime, lanes, seed, tell) if boards is None
            else board_table(settled(graph), boards, lanes, tell)
        )  # fmt: skip
    where = job.runtime if boards is None else f"code for {boards.target}"
    for line in write_listed([text_job(out, table.text())]):
        say(f"{line}: {len(table.rows)} layers in {where}, {table.rest:.3g} ms of the network in none")


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
