"""The report as tables: in colour and the terminal's width, or plain and 80 columns wide."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from secateur.ir.plain import printable

if TYPE_CHECKING:
    from secateur.passes.law import Verification
    from secateur.reading import Reading

    from .parts import Quality, Widths
    from .report import Report

WIDTH = 80
MANY = 12  # slots of a group that are shown; the JSON has all
COLOURS = {"pruned": "green", "frozen": "yellow", "kept": "cyan"}
NORM = " relative Frobenius norm"
UNIT_NAMES = {"macs": "MACs", "params": "parameters", "bytes": "bytes of weights", "nodes": "nodes"}


def text(report: Report, width: int = WIDTH, *, groups: bool = False) -> str:
    """Plain text, at most ``width`` columns."""
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, color_system=None, force_terminal=False, force_jupyter=False, highlight=False
    )
    show(report, console, groups=groups)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def show(report: Report, console: Console, *, groups: bool = False) -> None:
    """Print headline, layers, groups if asked for, totals, and what was checked."""
    console.print(f"[bold]{_shown(report.model)}[/bold]  policy {_shown(report.policy)}", highlight=False)
    console.print(_layers(report))
    if report.rewrites:
        console.print(_rewrites(report))
    if groups:
        console.print(_groups(report))
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
        shown = "{:.4g}".format if kind == "latency_ms" else _amount
        lines.append(f"budget: {kind} at most {shown(target)}, reached {shown(achieved)}")
    for name, found in (("reading", report.reading), ("written", report.written)):
        if found:
            lines.append(reading(name, found))
    check = report.verification
    if check:
        lines.append(law(check))
    if report.quality:
        lines.append(quality(report.quality))
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
        named = ", ".join(changed[:MANY]) + (", .." if len(changed) > MANY else "")
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


def _layers(report: Report) -> Table:
    """Names and reasons fold where the terminal is narrow; numbers never do."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold", ratio=3)
    table.add_column("op", no_wrap=True)
    table.add_column("widths", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("state, reason", overflow="fold", ratio=4)
    for row in report.layers:
        state = f"[{COLOURS[row.state]}]{row.state}[/]"
        reason = f": {_shown(row.reason)}" if row.reason else ""
        name, op = _shown(row.name), row.op.replace("conv_transpose", "convT")
        table.add_row(name, op, _widths(row.widths), _pair(row.macs), _pair(row.params), state + reason)
    return table


def _rewrites(report: Report) -> Table:
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
            _shown(row.spec), _shown(row.layer), _pair(row.macs), _pair(row.params),
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
        why = [f"frozen: {group.frozen}"] if group.frozen else []
        reasons = "; ".join([*why, *group.why])
        slots = (*group.slots[:MANY], "...") if len(group.slots) > MANY else group.slots
        table.add_row(group.id, str(group.size), _shown(" ".join(slots)), _shown(reasons))
    return table


def _widths(widths: tuple[Widths, Widths | None]) -> str:
    before, after = widths
    arrow = f"{before[0]}>{before[1]}"
    return arrow if after is None or after == before else f"{arrow} {after[0]}>{after[1]}"


def _pair(pair: tuple[int, int | None]) -> str:
    """The number, and what is left of it if that is less."""
    before, after = pair
    if after is None or after == before or not before:
        return short(before)
    return f"{short(before)} {after / before:.0%}"


def short(number: int) -> str:
    """Three digits and a unit: 1230000 -> 1.23M."""
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
