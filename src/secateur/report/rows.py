"""The report's rows, made of what the passes left on the graph: one for each channel group and each layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from secateur.ir import Array, Graph
from secateur.passes.analysis.cost import Costs, LayerCost
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.rewrite.layers import Rewritten

from .parts import Group, Layer, State, Widths
from .reasons import Reasons


def group_rows(coupling: Coupling, keep: Array | None) -> Iterable[Group]:
    """One row for each channel group; ``keep`` is bool[units], None when nothing was chosen."""
    for group in coupling.groups:
        kept = group.size if keep is None else int(keep[group.units].sum())
        yield Group(group.id, group.size, kept, tuple(group.slots), tuple(group.why), group.frozen)


def layer_rows(
    original: Costs, coupled: Graph | None, slim: Costs | None, rewritten: Rewritten | None = None
) -> list[Layer]:
    """One row for each layer with weights. ``coupled``: the graph whose notes say what was frozen and chosen.

    A layer that was rewritten has the sums over what took its place.
    """
    places = _places(rewritten)
    after = {row.node: row for row in slim.layers} if slim is not None else None
    reasons = Reasons(coupled) if coupled is not None else None
    rows: list[Layer] = []
    for row in original.layers:
        if row.widths is None:
            continue
        now, spec = _now(row, after, places)
        gone = after is not None and now is None
        state, reason = _state(row, now, gone, reasons)
        if spec:
            more = f"; {reason}" if reason and reasons else ""  # a rewrite alone prunes nothing, and need not say so
            reason = f"removed by {spec}" if gone else f"rewritten by {spec}{more}"
        rows.append(
            Layer(
                row.label,
                row.op,
                (row.macs, now.macs if now else 0 if gone else None),
                (row.params, now.params if now else 0 if gone else None),
                (row.widths, _widths(now, gone)),
                state,
                reason,
            )
        )
    return rows


def _places(rewritten: Rewritten | None) -> dict[str, tuple[list[str], str]]:
    """By node of the original: the nodes that stand in its place after all rewrites, and by what."""
    places: dict[str, tuple[list[str], str]] = {}
    for row in rewritten.rows if rewritten is not None else ():
        if row.reason is not None or (not row.pieces and not row.macs[0]):
            continue
        heirs = [(name, nodes, spec) for name, (nodes, spec) in places.items() if row.node in nodes]
        for name, nodes, spec in heirs:
            at = nodes.index(row.node)
            places[name] = ([*nodes[:at], *row.pieces, *nodes[at + 1 :]], f"{spec}, {row.spec}")
        if not heirs:
            places[row.node] = (list(row.pieces), row.spec)
    return places


def _now(
    row: LayerCost, after: Mapping[str, LayerCost] | None, places: Mapping[str, tuple[list[str], str]]
) -> tuple[LayerCost | None, str]:
    """What stands in a layer's place and what it costs, None if nothing does; and which rewrites put it there."""
    if after is None:
        return None, ""
    nodes, spec = places.get(row.node, ([row.node], ""))
    found = [after[name] for name in nodes if name in after]
    if not found or not spec:
        return (found[0] if found else None), spec
    ends = (found[0].widths, found[-1].widths)
    widths = (ends[0][0], ends[1][1]) if ends[0] and ends[1] else None
    whole = LayerCost(
        found[-1].node, row.label, row.op, sum(f.macs for f in found), sum(f.params for f in found), widths
    )
    return whole, spec


def _widths(now: LayerCost | None, gone: bool) -> Widths | None:
    if gone:
        return 0, 0
    return None if now is None else now.widths


def _state(row: LayerCost, now: LayerCost | None, gone: bool, reasons: Reasons | None) -> tuple[State, str | None]:
    node = now.node if now is not None else row.node
    frozen = reasons.frozen(node) if reasons else None
    if gone:
        return "pruned", "removed: nothing needs it any more"
    if now is not None and now.widths != row.widths:
        narrower = now.widths and row.widths and now.widths[1] < row.widths[1]
        return "pruned", None if narrower or not frozen else f"inputs only, all outputs stay: {frozen}"
    if frozen and now is not None and now.macs < row.macs:  # a layer over tokens, with fewer channels to apply it to
        return "pruned", f"over fewer channels, all outputs stay: {frozen}"
    if frozen:
        return "frozen", frozen
    return "kept", (reasons.unscored(node) if reasons else None) or (
        reasons.unchosen if reasons else "nothing was to be pruned"
    )


def keep_of(graph: Graph) -> Array | None:
    """The keep mask that was chosen, if one was."""
    note = graph.note(KeepMask)
    return None if note is None else note.mask
