"""What commands share: paths checked before the work, progress while it runs, reports and files after it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from secateur.ir import InputError
from secateur.ir.files import WHY, Job, check_writable, same_file, write_all
from secateur.ir.plain import printable
from secateur.ir.progress import Progress, quiet

if TYPE_CHECKING:
    from secateur.report.report import Report
    from secateur.report.table import Limit


def check_outputs(
    source: Path,
    out: Path | None,
    extras: Sequence[Path],
    overwrite: bool,
    ending: str | None = ".onnx",
    kept: Sequence[Path] | None = None,
) -> None:
    """Everything about paths that can be wrong before the work starts.

    ``out`` is None where a dry run has none, ``kept`` what a dry run writes all the same. Raises InputError.
    """
    if not source.exists():
        raise InputError(f"there is no file '{source}'; check the path")
    if source.is_dir():
        raise InputError(f"'{source}' is a folder; name the .onnx file in it")
    outs = [] if out is None else [out]
    for path in outs:
        if ending is not None and path.suffix.lower() != ending:
            raise InputError(f"cannot write '{path}': results are written as ONNX; give the file the ending .onnx")
        if same_file(source, path) and not (overwrite and ending is not None):
            raise InputError(
                f"'{path}' is the input itself; name another output, or say --overwrite to replace it at the end"
            )
    for index, path in enumerate(extras):
        if any(same_file(path, other) for other in (source, *outs, *extras[:index])):
            raise InputError(f"'{path}' is named twice, or is the input; give each output a file of its own")
    for path in (*outs, *extras) if kept is None else kept:
        check_writable(path)


def write_listed(jobs: Sequence[Job]) -> list[str]:
    """Write all files, and say of each how large it is and whether another stood there."""
    stood = [Path(path).is_file() for path, _ in jobs]
    write_all(jobs)
    lines = []
    for (path, _), replaced in zip(jobs, stood, strict=True):
        size = f", {amount_of_bytes(Path(path).stat().st_size)}" if Path(path).is_file() else ""  # a device has none
        lines.append(f"wrote {path}{size}" + (", in place of the file that stood there" if replaced else ""))
    return lines


def amount_of_bytes(size: int) -> str:
    """Three digits and a unit: 7654321 -> 7.65 MB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"


def say(text: str) -> None:
    """A message on stderr. All text goes to a terminal here, but for tables, whose cells are made printable too."""
    typer.echo(printable(text), err=True)


def json_path(json: str | None) -> Path | None:
    """The file that ``--json`` names; None without one, and where it is stdout."""
    return None if json in (None, "-") else Path(str(json))


def json_out(report: Report, json: str | None) -> None:
    """``--json -``: the report alone on stdout. Raises InputError where that cannot be written."""
    if json == "-":
        try:
            sys.stdout.write(report.to_json())
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            why = WHY.get(error.errno or 0, error.strerror or str(error))
            raise InputError(f"cannot write the report to standard output: {why}") from error


def screen() -> Console:
    """Where tables go: a terminal in its width, or what is piped, which nobody should wrap."""
    console = Console(stderr=True)
    if console.is_terminal:
        return console
    from secateur.report.text import UNWRAPPED

    return Console(stderr=True, width=UNWRAPPED)


def limit_of(layers: str | None) -> Limit:
    """``--layers``. Raises InputError."""
    if layers is None:
        return None
    if layers == "all":
        return "all"
    if not layers.isdecimal() or int(layers) < 1:
        raise InputError(f"--layers {layers}: give all, or a whole number from 1 up")
    return int(layers)


def show_report(report: Report, layers: Limit, groups: bool = False, page: bool = True) -> None:
    """In a terminal's width and colours, or unwrapped where something else reads it. ``page``: --report exists here."""
    from secateur.report.table import Signs
    from secateur.report.text import show, text

    console = screen()
    signs = Signs.of(sys.stderr.encoding)
    more = "--layers all" + ("; --report page.html has every one" if page else "; --json has every one")
    if console.is_terminal:
        show(report, console, groups=groups, layers=layers, signs=signs, more=more)
    else:
        say(text(report, groups=groups, layers=layers, signs=signs, more=more))


@contextlib.contextmanager
def progress(shown: bool = True) -> Iterator[Progress]:
    """A line with what runs, the share of it that is done and the time that all took, on a terminal only."""
    console = screen()
    if not (shown and console.is_terminal):
        yield quiet
        return
    from rich import progress as rich

    said = rich.TextColumn("{task.description}", markup=False)
    columns = (rich.BarColumn(bar_width=20), said, rich.TimeElapsedColumn())
    with rich.Progress(*columns, console=console, transient=True) as bar:
        number = bar.add_task("start", total=None)
        (task,) = bar.tasks
        name = [task.description]

        def tell(done: int, total: int | None, what: str, /) -> None:
            name[0] = printable(what) or name[0]
            task.total = total  # ``update`` could not take a total back
            bar.update(number, completed=done, description=name[0] + (f"  {done}/{total}" if total else ""))

        yield tell
