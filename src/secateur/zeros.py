"""``sparsity=`` and ``block=``: the pass that makes zeros, which layers gain by them, and what files say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from secateur.ir import Error, Graph, InputError
from secateur.ir.onnx_origin import ZEROS, OnnxOrigin
from secateur.passes.pipeline import Pass, number, print_pass
from secateur.passes.sparsify import Sparsified, Sparsify
from secateur.passes.sparsify.layers import places
from secateur.passes.sparsify.packed import read

LEAST = 1.05  # a layer whose kernel gains less stays dense
NAMED = 3  # layers that a remark names


def sparse_of(
    sparsity: float | str | None, block: str | tuple[int, int] | None, data: bool, lanes: int
) -> Sparsify | None:
    """The pass that makes zeros, if a share was given. ``data``: is there calibration data?

    Raises InputError for what is no share, for an unknown pattern, and for a pattern without a share.
    """
    if sparsity is None:
        if block is not None:
            raise InputError("block= says where zeros stand, and nothing how many; give sparsity= as well, as 0.7")
        return None
    share = number(sparsity) if isinstance(sparsity, str) else sparsity
    if isinstance(share, str | bool) or not 0 <= share < 1:
        raise InputError(f"sparsity {sparsity}: the share of weights that become zero, as 70% or 0.7, below 100%")
    spelled = "x".join(map(str, block)) if isinstance(block, tuple) else block or "auto"
    width = lanes if spelled == "auto" else 0
    return Sparsify(float(share), spelled, "moments" if data else "magnitude", width)


def with_zeros(spec: str, zeros: Sequence[Pass]) -> str:
    """The spec line with the passes that make zeros; these alone where nothing else is done."""
    return ",".join([*(() if zeros and spec == "none" else (spec,)), *map(print_pass, zeros)])


def advised(graph: Graph, step: Sparsify | None, target: str | None) -> tuple[tuple[Sparsify, ...], tuple[str, ...]]:
    """The pass without the layers that would gain nothing, and sentences on these for the report.

    ``auto`` is for speed: the network is planned with zeros by magnitude, and a layer whose block-sparse kernel is not
    estimated to gain ``LEAST`` over the fastest dense one keeps its weights. Other patterns are made as they were asked
    for. Where this network cannot be planned, so are these.
    """
    if step is None or step.block != "auto" or not step.sparsity:
        return (() if step is None else (step,)), ()
    from secateur.codegen.advice import gains

    trial = dataclasses.replace(step, by="magnitude")(graph)
    note = trial.note(Sparsified)
    assert note is not None
    try:
        found = gains(trial, target or "native")
    except Error as error:
        return (step,), (f"sparsity: which layers gain could not be estimated: {error}",)
    nodes = {node.name: node for node in graph.nodes}
    rows = [nodes[row.layer] for row in note.rows if nodes[row.layer].op in ("conv", "linear")]
    slow = {node.name: found.get(node.label, 1.0) for node in rows if found.get(node.label, 1.0) < LEAST}
    if not slow:
        return (step,), ()
    shown = ", ".join(f"{nodes[name].label} ({gain:.2f} times as fast)" for name, gain in list(slow.items())[:NAMED])
    more = f" and {len(slow) - NAMED} more" if len(slow) > NAMED else ""
    if len({row.layer for row in note.rows}) == len(slow):
        why = (
            f"no layer is estimated to gain {LEAST - 1:.0%} by {step.sparsity:.0%} of zeros on this target, as {shown}"
        )
        return (), (f"sparsity: nothing was set to zero: {why}; ask for more, or name a block, as --block 8x1",)
    said = f"sparsity: {len(slow)} layers stay dense, whose kernels gain less than {LEAST - 1:.0%}: {shown}{more}"
    return (dataclasses.replace(step, protect=(*step.protect, *map(_literal, slow))),), (said,)


def check_zeros(graph: Graph, where: str) -> None:
    """Compare what an ONNX file's metadata say of its zeros with its weights. ``where``: the file, for people.

    What is said of weights that this network does not have is passed over: another tool may have renamed them. Raises
    InputError where it is damaged, and where a block that is said to be zero is not.
    """
    origin = graph.note(OnnxOrigin)
    if origin is None or ZEROS.encode() not in origin.header:
        return
    from onnx import ModelProto

    said = {p.key.removeprefix(ZEROS): p.value for p in ModelProto.FromString(origin.header).metadata_props
            if p.key.startswith(ZEROS)}  # fmt: skip
    for place in places(graph):
        text = said.get(origin.names.get(place.weight, place.weight))
        if text is not None:
            read(text, place.rows(graph.weights[place.weight]), f"{where}: weight '{place.weight}'")


def _literal(name: str) -> str:
    """A glob that matches this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
