"""The report as one HTML page without scripts, fonts or pictures from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from .text import UNIT_NAMES, closing

if TYPE_CHECKING:
    from .parts import Widths
    from .report import Report

STYLE = """
:root { color-scheme: light dark; --text: #1c2733; --page: #fff; --faint: #5a6b7b; --line: #dde4ea; --rest: #e6ecf1;
  --bar: #2f7fb5; --pruned: #1b7a3d; --frozen: #a45c00; --kept: #21618c; --failed: #b00020; }
@media (prefers-color-scheme: dark) { :root { --text: #d7dee5; --page: #14191f; --faint: #93a1af; --line: #2c363f;
  --rest: #2c363f; --bar: #4aa3dd; --pruned: #5fc487; --frozen: #e0a14a; --kept: #6db3e3; --failed: #ff7a8a; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: var(--text); background: var(--page); }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td code { display: inline-block; min-width: 9rem; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pruned { color: var(--pruned); } .frozen { color: var(--frozen); } .kept { color: var(--kept); }
.failed { color: var(--failed); } rect.rest { fill: var(--rest); } rect.left { fill: var(--bar); }
details summary { cursor: pointer; } code { font-size: .9em; overflow-wrap: anywhere; }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1><p>policy <code>{policy}</code>, seed {seed}, secateur {version}; {versions}</p>
{closing}
<h2>Totals</h2>{totals}
<h2>Layers</h2>{layers}
{rewrites}
<h2>Channel groups</h2>{groups}
<h2>Passes</h2>{passes}
</body></html>
"""


def page(report: Report) -> str:
    """The whole page as text."""
    failed = report.verification is not None and not report.verification.passed
    lines = "".join(f"<p{' class=failed' if failed else ''}>{escape(line)}</p>" for line in closing(report))
    return PAGE.format(
        title=escape(report.model),
        style=STYLE,
        policy=escape(report.policy),
        seed=report.seed,
        version=escape(report.secateur),
        versions=escape(", ".join(f"{k} {v}" for k, v in report.versions.items())),
        closing=lines,
        totals=_totals(report),
        layers=_layers(report),
        rewrites=_rewrites(report),
        groups=_groups(report),
        passes=_table(
            ("pass", "seconds"), [(f"<code>{escape(p.spec)}</code>", f"{p.seconds:.3f}") for p in report.passes]
        ),
    )


def frame(report: Report) -> str:
    """The page inside of another one, such as a notebook's."""
    return f'<iframe srcdoc="{escape(page(report))}" style="width: 100%; height: 36rem; border: 0"></iframe>'


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], numbers: tuple[int, ...] = ()) -> str:
    """Cells are HTML already; columns in ``numbers`` are right-aligned."""

    def cells(tag: str, row: tuple[str, ...]) -> str:
        classes = [" class=n" if i in numbers else "" for i in range(len(row))]
        return "<tr>" + "".join(f"<{tag}{c}>{cell}</{tag}>" for c, cell in zip(classes, row, strict=True)) + "</tr>"

    body = "\n".join(cells("td", row) for row in rows)
    return f"<div class=wide><table><thead>{cells('th', heads)}</thead><tbody>\n{body}\n</tbody></table></div>"


def _totals(report: Report) -> str:
    rows = []
    for key, name in UNIT_NAMES.items():
        before = report.before.of(key)
        after = report.after.of(key) if report.after else None
        left = after / before if after is not None and before else 1.0
        shown = f"{after:,}" if after is not None else ""
        rows.append((name, f"{before:,}", shown, f"{left:.1%}" if after is not None else "", bar(left)))
    return _table(("", "before", "after", "left", ""), rows, (1, 2, 3))


def _layers(report: Report) -> str:
    rows = []
    for row in report.layers:
        (before, after), (params, params_after) = row.macs, row.params
        left = after / before if after is not None and before else 1.0
        wide, slim = row.widths
        state = f'<span class="{row.state}">{row.state}</span>'
        if row.reason:
            state += ": " + escape(row.reason)
        rows.append(
            (
                f"<code>{escape(row.name)}</code>", escape(row.op), _widths(wide, slim), _pair(before, after),
                _pair(params, params_after), bar(left), state,
            )
        )  # fmt: skip
    return _table(("layer", "op", "in &rarr; out", "MACs", "params", "MACs left", "state"), rows, (2, 3, 4))


def _rewrites(report: Report) -> str:
    if not report.rewrites:
        return ""
    rows = []
    for row in report.rewrites:
        said = "to be trained" if row.error is None else f"{row.error:.3g}"
        said += f" ({row.measure})" if row.measure else ""
        outcome = f"left alone: {row.reason}" if row.reason else said
        name, spec = escape(row.layer), escape(row.spec)
        rows.append(
            (
                f"<code>{spec}</code>",
                f"<code>{name}</code>",
                _pair(*row.macs),
                _pair(*row.params),
                escape(outcome),
            )
        )
    return "<h2>Rewrites</h2>" + _table(("pass", "layer", "MACs", "params", "error, or why it stayed"), rows, (2, 3))


def _groups(report: Report) -> str:
    rows = []
    for group in report.groups:
        why = "<br>".join(escape(line) for line in group.why)
        slots = " ".join(f"<code>{escape(s)}</code>" for s in group.slots)
        detail = f"<details><summary>{len(group.slots)} slots</summary>{slots}<p>{why}</p></details>"
        rows.append((group.id, f"{group.kept} / {group.size}", detail, escape(group.frozen or "")))
    return _table(("group", "kept", "slots and ties", "frozen because"), rows, (1,))


def _widths(wide: Widths, slim: Widths | None) -> str:
    before = f"{wide[0]} &rarr; {wide[1]}"
    return before if slim is None or slim == wide else f"{before}<br>{slim[0]} &rarr; {slim[1]}"


def _pair(before: int, after: int | None) -> str:
    return f"{before:,}" if after is None or after == before else f"{before:,}<br>{after:,}"


def bar(left: float) -> str:
    """What is left, as a bar of 100 pixels."""
    width = max(0.0, min(1.0, left)) * 100
    return (
        f'<svg width="100" height="10" role="img" aria-label="{left:.0%} left"><rect class=rest width="100" '
        f'height="10"/><rect class=left width="{width:.1f}" height="10"/></svg>'
    )
