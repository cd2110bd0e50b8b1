"""Graph -> Library, in parts where some operators have no code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np

from secateur.ir import Graph, Unsupported
from secateur.ir.precision import floats_at_edges
from secateur.ir.progress import Progress, quiet

from .build import build_piece, port, show_piece
from .division import Piece, divided
from .library import Library
from .metadata import Metadata
from .parted import RUNTIME, Part, PartedLibrary, RuntimeModel
from .plan.precision import F32, Precision
from .records import Records
from .targets import Target, target_for
from .tune.tuner import versions

SHOWN = 4  # operators that a sentence names


def build(
    graph: Graph,
    target: str | Target = "native",
    tune: float | None = None,
    threads: int = 1,
    records: str | Path | Records | None = None,
    progress: Progress = quiet,
    fast: bool = True,
    direct: Collection[str] = (),
    precision: Precision = F32,
) -> Library:
    """A library for this graph at the sizes it was captured with.

    ``tune``: seconds to spend on measuring kernels that ``records`` (a file, or what ``open_records`` read of it) has
    no entry for; None measures nothing. Ctrl-C ends the measuring, not the building. ``progress(done, total, what)`` is
    called while tuning. ``fast`` False: neither Winograd's nor Strassen's algorithm, slower and with smaller errors;
    ``direct``: neither of them in the layers of these labels. ``precision``: which layers multiply in bfloat16, on a
    target that can.
    What has no code, or cannot be planned, is left to ONNX Runtime, and the library's notes say what.
    Raises InputError for an unknown target or an unusable file, Unsupported where nothing of the graph has code.
    """
    chosen = target_for(target, precision.mode)

    def make(pieces: tuple[Piece, ...]) -> Library:
        return _joined(graph, pieces, chosen, tune, threads, records, progress, fast, direct, precision)

    return divided(graph, make)


def _joined(graph: Graph, pieces: tuple[Piece, ...], target: Target, tune: float | None, threads: int,
            records: str | Path | Records | None, progress: Progress, fast: bool, direct: Collection[str],
            precision: Precision) -> Library:  # fmt: skip
    """The library of parts; of one that is compiled, its own."""

    def build(graph: Graph, seconds: float | None) -> Library:
        return build_piece(graph, target, seconds, threads, records, progress, fast, direct, precision)

    if len(pieces) == 1 and not pieces[0].foreign:
        return build(pieces[0].graph, tune)
    _refuse_whole(graph, pieces)
    models = {i: _model(piece, threads) for i, piece in enumerate(pieces) if piece.foreign}
    compiled = len(pieces) - len(models)
    each = None if tune is None else tune / compiled
    parts = [
        Part(
            models.get(i) or build(piece.graph, each),
            tuple(v.name for v in piece.graph.inputs), piece.graph.outputs, piece.foreign,
        )
        for i, piece in enumerate(pieces)
    ]  # fmt: skip
    names = [v.name for v in graph.inputs], graph.outputs
    constants = {n: np.asarray(graph.weights[n]) for n in graph.outputs if n in graph.weights}
    return PartedLibrary(_metadata(graph, parts, target, threads), parts, names, constants)


def show_plan(
    graph: Graph,
    target: str | Target = "native",
    threads: int = 1,
    records: str | Path | Records | None = None,
    precision: Precision = F32,
) -> str:
    """What a library of this graph would call, one line a kernel (``plan.text``). Raises as ``build`` does."""

    def lines(pieces: tuple[Piece, ...]) -> list[str]:
        _refuse_whole(graph, pieces)
        return [
            f"ONNX Runtime: {', '.join(piece.foreign)}\n" if piece.foreign
            else show_piece(piece.graph, target, threads, records, precision)
            for piece in pieces
        ]  # fmt: skip

    return "".join(divided(graph, lines))


def _refuse_whole(graph: Graph, pieces: tuple[Piece, ...]) -> None:
    """Raises Unsupported where the runtime would compute everything."""
    if all(piece.foreign for piece in pieces):
        named = list(dict.fromkeys(title for piece in pieces for title in piece.foreign))
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        raise Unsupported(
            f"'{graph.name}' cannot be compiled: there is no code for {', '.join(named[:SHOWN])}{more}, and what is "
            "left multiplies nothing; run this network in ONNX Runtime or torch"
        )


def _model(piece: Piece, threads: int) -> RuntimeModel:
    from secateur.ir.exporters.onnx.write import part_to_onnx

    return RuntimeModel(part_to_onnx(floats_at_edges(piece.graph)).SerializeToString(), threads)


def _metadata(graph: Graph, parts: list[Part], target: Target, threads: int) -> Metadata:
    """That of the compiled parts together; notes say what the runtime computes."""
    built = [part.run.metadata for part in parts if isinstance(part.run, Library)]
    kernels = Counter({RUNTIME: len(parts) - len(built)})
    for one in built:
        kernels.update(one.kernels)
    foreign = [f"computed by ONNX Runtime, which has to be there: {', '.join(p.what)}" for p in parts if p.what]
    return Metadata(
        graph.name, built[0].target if built else target, threads, tuple(port(graph, v.name) for v in graph.inputs),
        tuple(port(graph, name) for name in graph.outputs), sum(one.arena_words for one in built), versions(),
        (*foreign, *dict.fromkeys(note for one in built for note in one.notes)), dict(kernels),
        precision=next((one.precision for one in built if one.precision != "f32"), "f32"),
    )  # fmt: skip
