"""What bench/accuracy/criteria.py measures: a network swept once, then pruned by every criterion, mended and judged.

Widths are free here (``round_to=1``) and channels compete over the whole network (``global``), so that rows differ by
the criterion alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import secateur
from bench.data import fashion, imagenet
from bench.lib import common
from secateur.ir import Error, Graph
from secateur.ir.exporters.torch.module import to_module
from secateur.passes import CRITERIA, PASSES, Pipeline, parse_spec
from secateur.passes.allocate import Global
from secateur.passes.analysis.cost import totals
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.slim import Slim
from secateur.passes.score import Criterion
from secateur.passes.sweep.gather import Gather

REPAIR = {"fashion": "refit", "imagenet": "refit{ridge=10%},reestimate_bn"}
TUNING = {"fashion": "distill{steps=100}"}  # after that; crops of ten photos are too little to tune on
OBD, ALIKE = "taylor{form=second}", "l2, alike"  # by what the table calls them
NAMES = (*CRITERIA, OBD, ALIKE)
Judge = Callable[[nn.Module], common.Row]


@dataclass(frozen=True, eq=False)
class Subject:
    """A coupled graph with the statistics of one sweep, and how a slim network is judged."""

    graph: Graph
    kind: str
    judge: Judge
    seconds: float
    seed: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense network."""
        return int(totals(self.graph).macs)


def criteria(seed: int) -> dict[str, Criterion]:
    """Every criterion by name; ``random`` draws from the seed. ALIKE scores as l2 and is allocated otherwise."""
    made: dict[str, Any] = {name: kind() for name, kind in CRITERIA.items()}
    made |= {OBD: CRITERIA["taylor"](form="second"), ALIKE: CRITERIA["l2"]()}  # type: ignore[call-arg]
    made["random"] = CRITERIA["random"](seed=seed)  # type: ignore[call-arg]
    return made


def swept(module: nn.Module, x: Tensor, data: Any, kind: str, judge: Judge, seed: int) -> Subject:
    """Trace, couple, and sweep once for all criteria."""
    graph = in_context(
        Pipeline((Canonicalize(), Couple()))(secateur.trace(module, (x,))), calibration=Calibration(data, seed)
    )
    start = time.perf_counter()
    graph = Gather(tuple(criteria(seed).values()))(graph)
    return Subject(graph, kind, judge, time.perf_counter() - start, seed)


def fashion_subject(name: str, seed: int, train: fashion.Data, test: fashion.Data, epochs: float) -> Subject:
    """A network trained on Fashion-MNIST, calibrated on 256 training examples with their labels."""
    known = train.first(256)
    module = fashion.trained(name, seed, train, epochs)
    return swept(
        module, test.x[:1], [(known.x, known.y)], "fashion", lambda m: {"top1": fashion.accuracy(m, test)}, seed
    )


def imagenet_subject(name: str, seed: int, examples: int) -> Subject:
    """A network with ImageNet weights, calibrated on so many crops without labels, judged on the twenty photos."""
    network = imagenet.NETWORKS[name]
    module = network.make()
    pixels, labels = imagenet.judged()
    x = network.preparation(pixels)
    data = [network.preparation(part) for part in torch.split(imagenet.crops(examples, seed), 16)]
    with torch.inference_mode():
        wanted = module(x)

    def judge(slim: nn.Module) -> common.Row:
        with torch.inference_mode():
            found = slim(x)
        agree = float((found.argmax(1) == wanted.argmax(1)).float().mean())
        error = float((found - wanted).norm() / wanted.norm())
        return {"top1": float((found.argmax(1) == labels).float().mean()), "agreement": agree, "logit_error": error}

    return swept(module, x[:1], data, "imagenet", judge, seed)


def scored(subject: Subject, name: str) -> tuple[Graph | None, common.Row]:
    """The graph with this criterion's scores and how long they took, or None with the reason of the refusal."""
    start = time.perf_counter()
    try:
        graph = criteria(subject.seed)[name](subject.graph)
    except Error as error:
        return None, {"refused": str(error)}
    return graph, {"score_s": time.perf_counter() - start}


def slim(graph: Graph, name: str, removed: float, repair: str = "") -> Graph:
    """The slim network with this share of the multiply-accumulates removed, mended by the passes of ``repair``."""
    mend = parse_spec(repair, PASSES) if repair else ()
    return Pipeline((Global(macs=1 - removed, round_to=1, alike=name == ALIKE), Slim(), *mend))(graph)


def repairs(kind: str) -> dict[str, str]:
    """How networks of a kind are mended, one after the other: by the name of the cell, the passes."""
    tuning = {"distill": TUNING[kind]} if kind in TUNING else {}
    return {"none": "", "compensation": REPAIR[kind]} | tuning


def cells(subject: Subject, name: str, shares: Sequence[float]) -> Iterator[common.Row]:
    """One row for each share removed and each repair, which goes on from the one before it."""
    graph, found = scored(subject, name)
    if graph is None:
        yield from ({"removed": r, "repair": m} | found for r in shares for m in repairs(subject.kind))
        return
    for removed in shares:
        network = slim(graph, name, removed)
        left = totals(network).macs / subject.macs
        for repair, spec in repairs(subject.kind).items():
            start = time.perf_counter()
            network = Pipeline(parse_spec(spec, PASSES))(network) if spec else network
            more = {"repair_s": time.perf_counter() - start, "spec": spec} if spec else {}
            judged = subject.judge(to_module(network).eval())
            yield {"removed": removed, "repair": repair, "macs_left": left} | found | more | judged


def tuned(subject: Subject, name: str, removed: float, train: fashion.Data, rate: float) -> common.Row:
    """One epoch of training after compensation."""
    graph, found = scored(subject, name)
    if graph is None:
        return found
    module = to_module(slim(graph, name, removed, REPAIR[subject.kind]))
    fashion.fit(module, train, 1, subject.seed, rate)
    return subject.judge(module)


def from_scratch(subject: Subject, name: str, removed: float, train: fashion.Data, epochs: float) -> common.Row:
    """The shape that this criterion finds, with weights drawn anew and trained for so many epochs."""
    graph, found = scored(subject, name)
    if graph is None:
        return found
    module = to_module(slim(graph, name, removed))
    torch.manual_seed(subject.seed + 1000)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            part.reset_parameters()
    fashion.fit(module, train, epochs, subject.seed)
    return subject.judge(module)
