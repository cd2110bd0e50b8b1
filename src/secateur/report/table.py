"""The table of layers: one line each at any width, names cut in the middle, reasons once below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rich.text import Text

from secateur.ir.plain import one_line, shortened

from .parts import Layer, Widths

Limit: TypeAlias = int | Literal["all"] | None  # layers to show; None shows all of MANY, and of more the HEAVIEST

MANY = 60
HEAVIEST = 15
NARROWEST = 60  # columns; a narrower terminal wraps
SHORTEST = 12  # of a name that is cut
COLOURS = {"pruned": "green", "frozen": "yellow", "kept": "cyan"}
PLACES = "the HTML page and the JSON have every one"  # where all layers are, for those who cannot give another limit


@dataclass(frozen=True)
class Signs:
    """How a stream can print what is not a letter."""

    arrow: str = "→"
    gap: str = "…"

    @staticmethod
    def of(encoding: str | None) -> Signs:
        """ASCII for a stream that has no arrows."""
        signs = Signs()
        try:
            (signs.arrow + signs.gap).encode(encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return Signs("->", "..")
        return signs


def layer_lines(
    layers: Sequence[Layer], width: int | None, limit: Limit, signs: Signs, more: str = PLACES
) -> Iterator[Text]:
    """Heads, a line for each layer, the sum of those that are not shown, and the reasons by their marks.

    ``width`` columns, None for as many as it takes; ``more`` says where to find the layers that are left out.
    """
    shown, rest = _heaviest(layers, limit)
    marks = _marks(shown)
    changed = any(row.macs[1] is not None for row in layers)
    rows = [_cells(row, changed, signs) for row in shown]
    heads = ("in" + signs.arrow + "out", *(("now", "MACs", "now", "left") if changed else ("MACs", "params")))
    sizes = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    names = [one_line(row.name) for row in shown]
    longest = max(map(len, ("layer", *names)))
    if width is not None:
        taken = sum(size + 2 for size in sizes) + max((len(mark) + 2 for mark in marks.values()), default=0)
        longest = min(longest, max(SHORTEST, max(width, NARROWEST) - taken))

    def line(name: str, cells: Sequence[str]) -> str:
        return "  ".join((name.ljust(longest), *(cell.rjust(size) for cell, size in zip(cells, sizes, strict=True))))

    yield Text(line("layer", heads))
    for row, name, cells in zip(shown, names, rows, strict=True):
        text = Text(line(shortened(name, longest, signs.gap), cells))
        text.stylize(COLOURS[row.state], len(text) - len(cells[-1]))
        mark = marks.get(_said(row))
        yield text if mark is None else text.append(f"  {mark}")
    if rest:
        yield Text(_sum(rest, signs, more))
    for said, mark in marks.items():
        yield Text(f"{mark} {said}")


def short(number: int) -> str:
    """Three digits and a unit: 1230000 -> 1.23M."""
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _heaviest(layers: Sequence[Layer], limit: Limit) -> tuple[list[Layer], list[Layer]]:
    """Those to show, in the order of the network, and the rest."""
    if limit == "all" or (limit is None and len(layers) <= MANY):
        return list(layers), []
    order = sorted(range(len(layers)), key=lambda i: -layers[i].macs[0])
    chosen = set(order[: HEAVIEST if limit is None else limit])
    return [x for i, x in enumerate(layers) if i in chosen], [x for i, x in enumerate(layers) if i not in chosen]


def _marks(layers: Sequence[Layer]) -> dict[str, str]:
    """Each reason's mark: ``#`` for one alone, else numbers."""
    reasons = [said for said in dict.fromkeys(map(_said, layers)) if said]
    return {said: "#" if len(reasons) == 1 else str(number) for number, said in enumerate(reasons, 1)}


def _said(row: Layer) -> str:
    if not row.reason:
        return ""
    return one_line(row.reason if row.state == "pruned" else f"{row.state}: {row.reason}")


def _cells(row: Layer, changed: bool, signs: Signs) -> tuple[str, ...]:
    before, after = row.macs
    if not changed:
        return _widths(row.widths[0], signs), short(before), short(row.params[0])
    now = before if after is None else after
    left = f"{now / before:.0%}" if before else "-"
    return _widths(row.widths[0], signs), _widths(row.widths[1], signs), short(before), short(now), left


def _widths(widths: Widths | None, signs: Signs) -> str:
    return "-" if widths is None else f"{widths[0]}{signs.arrow}{widths[1]}"


def pair(pair: tuple[int, int | None], signs: Signs) -> str:
    """Before and after, or the one number where nothing changed."""
    before, after = pair
    return short(before) if after is None or after == before else f"{short(before)} {signs.arrow} {short(after)}"


def _sum(rest: Sequence[Layer], signs: Signs, more: str) -> str:
    """What the layers come to that have no line."""
    after = [row.macs[1] for row in rest if row.macs[1] is not None]
    macs = pair((sum(row.macs[0] for row in rest), sum(after) if after else None), signs)
    return f"and {len(rest)} lighter layer{'s' if len(rest) > 1 else ''}: {macs} MACs ({more})"
