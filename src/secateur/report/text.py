"""The report as tables: in colour and the terminal's width, or plain and unwrapped."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from secateur.ir.plain import one_line, printable
from secateur.passes.allocate.amount import TIMED

from .table import PLACES, Limit, Signs, layer_lines, pair, short

if TYPE_CHECKING:
    from secateur.checks.comparison import Reading
    from secateur.passes.law import Verification

    from .parts import Deviation, Group, Quality
    from .report import Report

UNWRAPPED = 100_000  # columns, for what goes to a file: whoever looks for a name there finds it
SLOTS = 12  # slots of a group that are shown; the JSON has all
NORM = " relative Frobenius norm"
UNIT_NAMES = {"macs": "MACs", "params": "parameters", "bytes": "bytes of weights", "nodes": "nodes"}


def text(
    report: Report,
    width: int | None = None,
    *,
    groups: bool = False,
    layers: Limit = None,
    signs: Signs | None = None,
    more: str = PLACES,
) -> str:
    """Plain text: in at most ``width`` columns (60 or more), or unwrapped. For the rest see ``show``."""
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=UNWRAPPED if width is None else width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        highlight=False,
    )
    show(report, console, groups=groups, layers=layers, signs=signs, more=more)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def show(
    report: Report,
    console: Console,
    *,
    groups: bool = False,
    layers: Limit = None,
    signs: Signs | None = None,
    more: str = PLACES,
) -> None:
    """Print headline, layers, groups if asked for, totals, and what was checked, in the console's width and colours.

    ``layers``: "all", or how many of the heaviest; without it all of up to 60, and of more the 15 heaviest. ``more``
    says where the others are. ``signs``: what stands for an arrow where the console has none.
    """
    console.print(f"[bold]{_shown(report.model)}[/bold]  policy {_shown(report.policy)}", highlight=False)
    signs = signs or Signs()
    for row in layer_lines(report.layers, console.width, layers, signs, more):
        console.print(row, no_wrap=True, overflow="ignore", crop=False, highlight=False)
    if report.rewrites:
        console.print(_rewrites(report, signs))
    if groups:
        if console.width < UNWRAPPED:
            console.print(_groups(report))
        else:
            for line in _group_lines(report):
                console.print(line, markup=False)
    console.print(_totals(report))
    for line in closing(report):
        console.print(_shown(line), highlight=False)


def _shown(text: str) -> str:
    """Text as it is: neither markup nor what a terminal would obey."""
    return escape(printable(text))


def headline(report: Report) -> str:
    """Model, and multiply-accumulates and parameters before and after, in a few words."""
    pairs = (f"{short(report.before.of(kind))}" + (f" -> {short(report.after.of(kind))}" if report.after else "") +
             f" {UNIT_NAMES[kind]}" for kind in ("macs", "params"))  # fmt: skip
    return f"{report.model}, {', '.join(pairs)}"


def closing(report: Report) -> list[str]:
    """Budget, law and remarks, a line each."""
    lines = []
    if report.budget:
        kind, target, achieved = report.budget.kind, report.budget.target, report.budget.achieved
        shown = "{:.4g}".format if kind in TIMED else _amount
        most = "least" if kind == "speedup" else "most"
        lines.append(f"budget: {kind} at {most} {shown(target)}, reached {shown(achieved)}")
    for name, found in (("reading", report.reading), ("written", report.written)):
        if found:
            lines.append(reading(name, found))
    check = report.verification
    if check:
        lines.append(law(check))
    if report.quality:
        lines.append(quality(report.quality))
    elif report.deviation:
        lines.append(deviation(report.deviation))
    if report.latency_ms:
        t = report.latency_ms
        lines.append(
            f"latency: {t.before.median:.2f} ms before, {t.after.median:.2f} ms after, "
            f"{t.ratio:.2f} times as fast ({t.runtime}, threads {t.threads}, medians side by side)"
        )
    frozen = [g for g in report.groups if g.frozen]
    lines.append(f"groups: {len(report.groups)}, of these frozen {len(frozen)}")
    return lines + list(report.remarks)


def quality(found: Quality) -> str:
    """Top-1 and agreement in one line, and on what they were measured."""
    top1 = "no labels, " if found.top1 is None else "top-1 {:.2%} before, {:.2%} after, ".format(*found.top1)
    which = "held out" if found.held_out else "that were fitted"
    return f"quality: {top1}agreement {found.agreement:.2%} on {found.examples} {which}"


def deviation(found: Deviation) -> str:
    """How far outputs that are no classes differ, in one line, and on what that was measured."""
    which = "held out" if found.held_out else "that were fitted"
    sure = f" ({found.low:.2%} to {found.high:.2%})" if math.isfinite(found.high) else ""
    return f"deviation: outputs differ by {found.error:.2%}{sure} on {found.examples} {which}"


def reading(name: str, check: Reading) -> str:
    """The comparison with the original, or of what was written, in one line."""
    if check.passed is None:
        return f"{name}: {check.note}"
    note = f" ({check.note})" if check.note else ""
    runs = f"{check.runs} run{'s' if check.runs > 1 else ''}"
    return f"{name}: computes what {check.reference} does, error {check.max_rel_err:.1e} in {runs}{note}"


def law(check: Verification) -> str:
    """The outcome of the law's check: what holds of what, what was compared, and what was changed on purpose."""
    outcome = "holds" if check.passed else "FAILS"
    error, inputs = check.max_rel_err, check.inputs
    line = f"law: {outcome} ({check.law}), error {error:.1e} on {inputs} inputs, against the {check.reference}"
    changed = check.changed
    if changed:
        named = ", ".join(changed[:SLOTS]) + (", .." if len(changed) > SLOTS else "")
        line += f", for the network as it was cut\n{len(changed)} weights were changed on purpose afterwards: {named}"
        if check.distance is not None:
            line += f"\nwith them outputs are {check.distance:.1e} (relative) from the {check.reference}"
    if check.compared != "function":
        line += f"\ncompared: {check.compared}"
    return line


def _amount(value: float | int) -> str:
    return f"{value:.2%}" if isinstance(value, float) else f"{value:,}"


def _totals(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("total")
    for name in ("before", "after", "left") if report.after else ("",):
        table.add_column(name, justify="right")
    for key, name in UNIT_NAMES.items():
        before = report.before.of(key)
        row = [name, f"{before:,}"]
        if report.after:
            after = report.after.of(key)
            row += [f"{after:,}", f"{after / before:.1%}" if before else "-"]
        table.add_row(*row)
    return table


def _rewrites(report: Report, signs: Signs) -> Table:
    """Each layer that a rewrite looked at: what it cost before and after, and its error, or why it was left alone.

    The head says once by what norm, which the JSON and the page repeat in every row.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("rewrite", overflow="fold", ratio=3)
    table.add_column("layer", overflow="fold", ratio=3)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column(f"error (weights:{NORM}), or why it was left", overflow="fold", ratio=4)
    for row in report.rewrites:
        error = "to be trained" if row.error is None else f"{row.error:.3g}"
        said = error + (f" ({row.measure.replace(f',{NORM}', '')})" if row.measure else "")
        table.add_row(
            _shown(row.spec), _shown(row.layer), pair(row.macs, signs), pair(row.params, signs),
            _shown(f"left alone: {row.reason}" if row.reason else said),
        )  # fmt: skip
    return table


def _groups(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("group", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("slots", overflow="fold", ratio=3)
    table.add_column("ties and reasons", overflow="fold", ratio=3)
    for group in report.groups:
        slots, why = _described(group)
        table.add_row(group.id, str(group.size), _shown(slots), _shown(why))
    return table


def _group_lines(report: Report) -> Iterator[str]:
    """The same, a line each, for what is not read in columns: the longest list of slots would set the width of all."""
    yield "groups: size: slots (ties and reasons)"
    for group in report.groups:
        slots, why = _described(group)
        yield one_line(f"{group.id}: {group.size}: {slots}" + (f" ({why})" if why else ""))


def _described(group: Group) -> tuple[str, str]:
    """Its slots, and why they are tied and frozen."""
    frozen = (f"frozen: {group.frozen}",) if group.frozen else ()
    slots = (*group.slots[:SLOTS], "...") if len(group.slots) > SLOTS else group.slots
    return " ".join(slots), "; ".join((*frozen, *group.why))
