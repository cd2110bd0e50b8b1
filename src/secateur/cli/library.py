"""``secateur build``, ``tune`` and ``run``: libraries from the command line."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import typer

from secateur.calibration.arrays import ArrayFile
from secateur.calibration.load import load_calibration
from secateur.capture import load
from secateur.checks.reading import check_reading
from secateur.codegen.emit.loading import load_tvm
from secateur.codegen.library import linker
from secateur.codegen.runtime import cores
from secateur.codegen.targets import target_for
from secateur.codegen.tune.tracker import Tracker
from secateur.deploy import build, load_library, read_results, seconds, show_plan, tune, write_candidates
from secateur.ir import Array, Graph, InputError
from secateur.ir.files import Job, check_writable, same_file
from secateur.ir.frontends.onnx.process import OnnxProcess
from secateur.ir.plain import one_line
from secateur.report.collect import capture_remarks
from secateur.report.text import reading as shown

from .errors import INTERRUPTED
from .shapes import shapes_of
from .terminal import progress, say, write_listed

SHOWN = 8  # values of an output


def build_model(source: Path, out: Path, target: str, threads: int, records: Path | None, time: str | None,
                batch: int | None, shapes: tuple[str, ...], trust: bool = False,
                show: bool = False, compact: bool = False, precision: str = "f32",
                calibration: Path | None = None) -> None:  # fmt: skip
    """``secateur build``: one file that ``run``, Python and C++ load."""
    if same_file(source, out):
        raise InputError(f"'{out}' is the model itself; name another output")
    tell_threads(target, threads)
    linker(target_for(target, precision))
    check_writable(out)
    if time is not None:
        seconds(time)
    process = OnnxProcess()
    graph = _load(source, shapes, process)
    reading = None if trust else check_reading(source, graph, process=process)
    process.stop()
    load_tvm()
    data = None if calibration is None else load_calibration(calibration, graph)[0]
    with progress() as tell:
        library = build(
            graph, target, time, threads, records, tell, batch, compact=compact, precision=precision, calibration=data
        )
    lines = write_listed([(out, library.write)])
    if show:
        typer.echo(show_plan(graph, target, threads, records, batch, precision), nl=False)
    for note in library.metadata.notes:
        say(note)
    if reading is not None:
        say(shown("reading", reading))
    for line in lines:
        say(f"{line}, for {library.metadata.target.name}, threads {threads}")


def tune_model(source: Path, target: str, threads: int, records: Path, time: str, batch: int | None,
               shapes: tuple[str, ...], tracker: str | None = None, key: str | None = None,
               precision: str = "f32") -> None:  # fmt: skip
    """``secateur tune``: measure kernels and keep the choices. Exit code 130 when it is interrupted."""
    seconds(time)  # a mistake in it should show before the model is read
    if tracker is None and key is not None:
        raise InputError(f"--key {key}: say with --tracker HOST:PORT where the boards are")
    chosen = target_for(target, precision)
    if tracker is None:
        tell_threads(target, threads)
    else:
        boards = Tracker.parse(tracker, key or "").check()
        linker(chosen)
        say(f"measuring on {boards} board{'s' if boards > 1 else ''} under the key '{key}' at {tracker}")
    graph = _load(source, shapes)
    load_tvm()
    with progress() as tell:
        outcome, notes = tune(graph, records, time, target, threads, tell, batch, tracker, key or "", precision)
    for note in (*notes, *outcome.notes):
        say(note)
    say(f"{outcome.measured} kernels were measured; their records are in {records}")
    if outcome.left:
        say("run it again to measure the rest")
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)


def tune_elsewhere(source: Path, target: str, threads: int, records: Path, batch: int | None, shapes: tuple[str, ...],
                   candidates: Path | None, results: Path | None, tracker: str | None,
                   precision: str = "f32") -> None:  # fmt: skip
    """``secateur tune`` for a machine that no network reaches: write candidates to a folder, or read results back."""
    given = {"--candidates": candidates, "--results": results, "--tracker": tracker}
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)}: give one of them")
    linker(target_for(target, precision))
    graph = _load(source, shapes)
    load_tvm()
    if candidates is not None:
        with progress() as tell:
            count = write_candidates(graph, candidates, records, target, threads, tell, batch, precision)
        say(f"{count} kernels are in {candidates}: copy it to the device, run its measure.py, bring the folder back, "
            f"and read it with --results")  # fmt: skip
    elif results is not None:
        outcome = read_results(graph, results, records, target, threads, batch, precision)
        for note in outcome.remarks:
            say(note)
        say(f"{outcome.measured} kernels were measured; their records are in {records}")
        if outcome.left or outcome.failed:
            say(f"{outcome.failed} could not be measured, {outcome.left} were not")


def _load(source: Path, shapes: tuple[str, ...], process: OnnxProcess | None = None) -> Graph:
    """The graph at these sizes; those that were chosen for it are told."""
    graph = load(source, process, shapes=shapes_of(shapes))
    for remark in capture_remarks(graph):
        say(remark)
    return graph


def tell_threads(target: str, threads: int) -> None:
    """Say where a library for this machine gets more threads than the machine has cores."""
    here = len(cores())
    if target == "native" and threads > here:
        say(f"threads {threads}: this machine has {here}, and a run uses no more than there are")


def run_library(path: Path, inputs: Sequence[str], output: Path | None) -> None:
    """``secateur run``: arrays in and out as .npy files; sizes, a few values and the time to the terminal."""
    library = load_library(path)
    ports = [p.name for p in library.metadata.inputs]
    given: dict[str, Array] = {}
    for text in inputs:
        name, equals, file = text.rpartition("=")
        if not equals and len(ports) == 1:
            name = ports[0]
        if name not in ports:
            raise InputError(f"--input {text}: the library takes {', '.join(ports)}; write NAME=file.npy")
        given[name] = _array(Path(file))
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"--output '{output}' is a file; name a folder")
    start = clock.perf_counter()
    results = library(**given)
    seconds_taken = clock.perf_counter() - start
    results = results if isinstance(results, tuple) else (results,)
    for port, array in zip(library.metadata.outputs, results, strict=True):
        say(f"{one_line(port.name)} {port.dtype}[{', '.join(map(str, array.shape))}]: {_values(array)}")
    say(f"took {seconds_taken * 1e3:.3g} ms, the first run, threads {library.metadata.threads}")
    if output is not None:
        _save(output, {f"{_file_name(p.name)}.npy": a for p, a in zip(library.metadata.outputs, results, strict=True)})


def _values(array: Array) -> str:
    """A few of the numbers, in the order in which they lie in memory."""
    flat = np.ravel(array)
    return " ".join(f"{x:.4g}" for x in flat[:SHOWN].tolist()) + (" .." if flat.size > SHOWN else "")


def _array(path: Path) -> Array:
    file = ArrayFile.open(path, "--input")
    if len(file.names) != 1:
        raise InputError(f"'{path}' holds several arrays; give one .npy file for each input")
    return file.read(file.names[0])


def _save(folder: Path, arrays: Mapping[str, Array]) -> None:
    """Write the arrays, each to the file of this name in the folder, all or none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make '{folder}': {error.strerror}; name another folder with --output") from error
    for line in write_listed([_array_job(folder / name, array) for name, array in arrays.items()]):
        say(line)


def _array_job(path: Path, array: Array) -> Job:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, array)

    return path, write


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
