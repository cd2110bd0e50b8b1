"""What a compact library costs: the layers that do without an algorithm whose weights are larger than the network's.

Winograd's products take (m + 2)^2 / 9 times the weights of a 3x3 convolution, and Strassen's 7/4 of what they multiply.
They are written as they are used, so that loading is reading; a compact library leaves these algorithms out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from secateur.ir import Graph

from .backends import backend_for
from .division import Piece, divided
from .plan.family import Workload, family_of
from .plan.lower import lower
from .plan.program import Program
from .records import Records
from .targets import Target, get_target
from .tune.tuner import Tuner, open_records


@dataclass(frozen=True)
class Cost:
    """``layers`` would take another kernel; by ``estimates`` all tuned kernels take ``times`` as long without."""

    layers: int
    times: float

    def __str__(self) -> str:
        if not self.layers:
            return "compact: no layer would have taken an algorithm with larger weights, so it costs nothing"
        many = "1 layer does" if self.layers == 1 else f"{self.layers} layers do"
        return (
            f"compact: {many} without Winograd's or Strassen's algorithm, whose weights are larger; by estimates the "
            f"multiplying kernels take {self.times:.2f} times as long"
        )


def cost_of_compact(
    graph: Graph, target: str | Target = "native", threads: int = 1, records: str | Path | Records | None = None
) -> Cost:
    """What leaving out inexact algorithms costs a library of this graph. Raises as ``build`` does."""
    chosen = get_target(target)
    backend = backend_for(chosen)
    tuner = Tuner(chosen, threads, open_records(chosen, records))

    def plan(pieces: tuple[Piece, ...]) -> list[Program]:
        return [lower(piece.graph, chosen, threads, None, backend) for piece in pieces if not piece.foreign]

    layers, fast, plain = 0, 0.0, 0.0
    for program in divided(graph, plan):
        for late in program.open:
            specs = [cast(Workload, spec) for spec in late.specs if hasattr(spec, "estimate")]
            exact = [spec for spec in specs if (of := family_of(spec, backend.families)) is None or of.exact]
            if not exact:
                continue
            best, other = tuner.fastest(specs), tuner.fastest(exact)
            layers += best not in exact
            fast, plain = fast + best.estimate(chosen), plain + other.estimate(chosen)
    return Cost(layers, plain / fast if fast else 1.0)
