"""What the sweep costs: time next to training's, memory by criterion, and how long criteria take to score afterwards.

    python -m bench.speed.sweep [--networks ref/resnet50,tv/mobilenet_v2] [--examples 32] [--rounds 3]

*ratio*: the sweep for all criteria over the time of a forward and a backward pass, with gradients of all weights, over
the same pictures in the same batches: by turns, CPU seconds of the one thread (what else the machine does counts
little), medians of the rounds. *memory*: the peak resident size of
a process that loads the network, sweeps for one criterion and scores, next to one that loads and runs it; GB are 1e9
bytes. *score*: CPU seconds of each criterion on the graph with its statistics.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.lib import common
from bench.nets import networks
from secateur.ir import Error, Graph
from secateur.passes import CRITERIA, Pipeline
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.score import Criterion
from secateur.passes.sweep.gather import Gather

BATCH = 8
GB = 1e9


def prepared(name: str, examples: int, seed: int) -> tuple[networks.Network, Graph, list[np.ndarray[Any, Any]]]:
    """The network, its coupled graph with drawn pictures as a note, and these in batches."""
    network = networks.capture(name, seed, dynamic_batch=True)
    rng = np.random.default_rng(seed)
    data = [rng.standard_normal((BATCH, *network.x.shape[1:]), np.float32) for _ in range(max(1, examples // BATCH))]
    graph = in_context(Pipeline((Canonicalize(), Couple()))(network.graph), calibration=Calibration(data, seed))
    return network, graph, data


def train(network: networks.Network, data: list[np.ndarray[Any, Any]]) -> None:
    """A forward and a backward pass over the data."""
    for x in data:
        network.module.zero_grad()
        scores = network.module(torch.from_numpy(x))
        loss = torch.nn.functional.cross_entropy(scores, scores.detach().argmax(1))
        loss.backward()  # type: ignore[no-untyped-call]


def times(name: str, examples: int, rounds: int, seed: int) -> common.Row:
    """Seconds of both by turns, and of each criterion afterwards."""
    network, graph, data = prepared(name, examples, seed)
    criteria: tuple[Criterion, ...] = tuple(kind() for kind in CRITERIA.values())
    train(network, data[:1])
    seconds: dict[str, list[float]] = {"train": [], "sweep": []}
    found = graph
    for _ in range(rounds):
        for key in seconds:
            start = time.process_time()
            if key == "train":
                train(network, data)
            else:
                del found
                known = Calibration(data, seed)  # data that were swept already are not swept again
                found = Gather(criteria)(in_context(graph, calibration=known))
            seconds[key].append(time.process_time() - start)
    ratio = statistics.median(s / t for s, t in zip(seconds["sweep"], seconds["train"], strict=True))
    scores: dict[str, float | str] = {}
    for criterion in criteria:
        start = time.process_time()
        try:
            criterion(found)
            scores[criterion.name] = time.process_time() - start
        except Error as error:
            scores[criterion.name] = str(error)
    return {"ratio": ratio, "seconds": seconds, "score_s": scores}


def scored(name: str, examples: int, seed: int, wanted: list[str]) -> common.Row:
    """CPU seconds of these criteria alone, each after a sweep of its own, and what else the machine did."""
    _, graph, _ = prepared(name, examples, seed)
    seconds: dict[str, float] = {}
    for key in wanted:
        criterion = CRITERIA[key]()
        found = Gather((criterion,))(graph)
        start = time.process_time()
        criterion(found)
        seconds[key] = time.process_time() - start
    return {"score_s": seconds, "load": round(os.getloadavg()[0], 1)}


def resident(name: str, examples: int, seed: int, what: str) -> None:
    """In a process of its own: sweep and score by one criterion, by all, or (``none``) only run; prints peak bytes."""
    network, graph, data = prepared(name, examples, seed)
    if what == "none":
        with torch.inference_mode():
            network.module(torch.from_numpy(data[0]))
    else:
        asked = tuple(kind() for key, kind in CRITERIA.items() if what in (key, "all"))
        found = Gather(asked)(graph)
        for criterion in asked:
            with contextlib.suppress(Error):  # that a network has nothing for a criterion shows in its row's score
                criterion(found)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(json.dumps(int(peak[1]) * 1024))


def memory(name: str, examples: int, seed: int) -> dict[str, int]:
    """Peak bytes of a process for each criterion that looks at data, for all of them, and for none."""
    peaks = {}
    for what in ("none", "all", *(key for key, kind in CRITERIA.items() if kind.data)):
        script = f"from bench.speed import sweep; sweep.resident({name!r}, {examples}, {seed}, {what!r})"
        done = common.run([sys.executable, "-c", script], threads=1)
        if done.code:
            raise SystemExit(f"sweep: {what} failed: {done.stderr[-500:]}")
        peaks[what] = int(json.loads(done.stdout.splitlines()[-1]))
    return peaks


def main() -> int:
    """Measure each network, print and append."""
    parser = common.parser(__doc__, "sweep.jsonl")
    parser.add_argument("--networks", default="ref/resnet50,tv/mobilenet_v2", help="names as in networks.py")
    parser.add_argument("--examples", type=int, default=32, help="pictures swept over (default 32)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of either (default 3)")
    parser.add_argument("--criteria", default="", help="these alone, and nothing but how long they score")
    parser.add_argument("--no-memory", action="store_true", help="time alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.networks.split(","):
        row = {"network": name, "examples": arguments.examples, "batch": BATCH}
        if arguments.criteria:
            row |= scored(name, arguments.examples, arguments.seed, arguments.criteria.split(","))
            common.append(arguments.output, [row | common.circumstances(arguments.seed)])
            print(f"{name}: {row['score_s']} s, load {row['load']}")
            continue
        row |= times(name, arguments.examples, arguments.rounds, arguments.seed)
        if not arguments.no_memory:
            row["peak_bytes"] = memory(name, arguments.examples, arguments.seed)
        common.append(arguments.output, [row | common.circumstances(arguments.seed)])
        print(f"{name}: the sweep takes {row['ratio']:.2f} times a forward and backward pass")
        peaks = row.get("peak_bytes", {})
        cells = [[k, s, peaks[k] / GB if k in peaks else None] for k, s in row["score_s"].items()]
        cells += [[k, None, peaks[k] / GB] for k in ("all", "none") if k in peaks]
        print(common.table(["criterion", "score s", "peak GB"], cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
