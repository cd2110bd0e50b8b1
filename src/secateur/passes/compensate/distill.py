"""``distill``: the slim network is tuned towards the original's outputs, without labels (Hinton et al., 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from secateur.ir import Graph, InputError

from .original import noted


@dataclass(frozen=True)
class Distill:
    """Tune all weights so that the outputs come nearer to the original's on calibration data. No labels.

    Each step takes ``batch`` examples, drawn anew, and moves every weight by at most ``rate`` of the size that its
    tensor has (Adam's direction, along a cosine to zero), so that layers whose batch norm was folded learn at the pace
    of the others. Statistics of batch norms stay. For scores by class the distance is the divergence at temperature 2,
    which keeps their order, else, and with ``by`` "square", the mean square over that of the original's outputs, which
    keeps the numbers; layers whose outputs lost channels follow the original's at those that are left, by ``inner`` of
    the loss. ``augment``: pictures are shifted by up to an eighth of their size, which is a crop whose border is
    repeated, and with ``mirror`` half of them are mirrored (inputs of four axes with one, three or four channels, first
    or last); both networks see the same. Text and digits want ``mirror=false``. ``mix``: each step sees mixtures of two
    examples (mixup, Zhang et al., ICLR 2018), which long runs on few examples may want (Beyer et al., CVPR 2022).

    It takes ``steps``, or as many as ``time`` seconds allow. One example in eight is not tuned on: every tenth of the
    way the distance is taken there, and the best weights are kept, those at the beginning included; where the loss is
    no number any more it ends with them. Of pictures it is taken on views, as tuning sees them, several of each where
    there are few, since ``refit`` may have been fitted to the pictures as they are. Processes under ``torchrun`` share
    each batch. With a folder of checkpoints a run that was killed goes on where it was, and ends as it would have.

    Before: ``y = f(x, w)``. After: the same shapes, w such that y is nearer to the original's.
    """

    name: ClassVar[str] = "distill"
    keeps_state: ClassVar[bool] = True
    time: float = 120.0
    steps: int = 0
    rate: float = 6e-3
    batch: int = 64
    inner: float = 0.5
    augment: bool = True
    mirror: bool = True
    mix: bool = False
    examples: int = 4096
    by: Literal["auto", "square"] = "auto"

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError without data, for numbers that make no sense, and where torch cannot run the network."""
        from .tuning import Tuning

        numbers = (self.time, self.rate, self.inner)
        if self.steps < 0 or self.batch < 1 or self.examples < 2 or not all(0 <= x < float("inf") for x in numbers):
            raise InputError(
                f"distill{{time={self.time:g},steps={self.steps},rate={self.rate:g},batch={self.batch},"
                f"inner={self.inner:g},examples={self.examples}}}: numbers must be positive; time is in seconds, or "
                "says its unit as 2m does"
            )
        if not self.steps and not self.time:
            raise InputError("distill{time=0}: give the time that tuning may take (time=2m) or steps=1000")
        if self.by not in ("auto", "square"):
            raise InputError(f"distill{{by={self.by}}}: auto or square")
        return noted(graph.rewrite(weights={**graph.weights, **Tuning(graph, self).run()}), self)

    @staticmethod
    def may_change(graph: Graph) -> frozenset[str]:
        """Every floating weight but the statistics of batch norms."""
        kept = {n for node in graph.nodes if node.op == "batch_norm" for n in node.inputs[3:5]}
        return frozenset(n for n, w in graph.weights.items() if w.dtype.kind == "f" and n not in kept)
