"""What patterns of zeros keep next to irregular ones: the deck's second table, on LSTM weights and on a formula.

    python -m bench.accuracy.retained

For each recurrent weight: the mean magnitude of what a pattern keeps, against that of irregular pruning that keeps as
many. The deck (DARB, Ren et al., AAAI 2020, table 2) has a loss of 4.3 % for DARB on LSTM layers, where blocks of 4 x 4
lose 31.1 %. For exponential magnitudes blocks that keep one of B lose 1 - H_B / (1 + ln B). Trained weights are those
of two silero-vad files, of Resemblyzer, and of a layer that is trained here: 128 units that read the pictures of
Fashion-MNIST row by row, three passes over 6,000 of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from bench.data import fashion, material
from bench.lib import common
from bench.nets import voice_nets
from secateur.ir import Array
from secateur.passes.sparsify.balanced import Balanced
from secateur.passes.sparsify.bmwm import block_max
from secateur.passes.sparsify.darb import DARB
from secateur.passes.sparsify.pattern import Mask, largest
from secateur.passes.sparsify.rectangles import Rectangles

FILES = ("silero_vad_16k_sequence", "silero_vad_v4")  # LSTM of 128 and of 64 units
BLOCKS = (2, 4, 8, 16)
DECK = {"DARB": 0.043, "4x4": 0.311}


def lost(magnitude: Array, mask: Mask) -> float:
    """The share of the mean magnitude that is lost against irregular pruning that keeps as many."""
    best = largest(magnitude.reshape(-1), int(mask.sum()))
    return float(1 - magnitude[mask].mean() / magnitude.reshape(-1)[best].mean())


def patterns(magnitude: Array, size: int) -> dict[str, float]:
    """What each pattern loses where one of ``size`` stays."""
    share, squares = 1 - 1 / size, magnitude**2
    return {
        "BMWM": lost(magnitude, block_max(squares, size)), "DARB": lost(magnitude, DARB().mask(squares, share)),
        "balanced 8x1": lost(magnitude, Balanced(8).mask(squares, share)),
        "4x4": lost(magnitude, Rectangles(4, 4).mask(squares, share)),
    }  # fmt: skip


def weights(seed: int) -> Iterator[tuple[str, Array]]:
    """By name, matrices [rows, columns]: random ones, and the recurrent ones of trained networks."""
    rng = np.random.default_rng(seed)
    yield "exponential", rng.exponential(size=(256, 1024))
    yield "normal", np.abs(rng.standard_normal((256, 1024)))
    yield "normal, rows of other scales", np.abs(rng.standard_normal((256, 1024))) * rng.lognormal(0, 0.5, (256, 1))
    for name in FILES:
        yield from _recurrent(name)
    yield from _matrices("Resemblyzer", voice_nets.resemblyzer())
    torch.manual_seed(seed)
    yield from _matrices("trained here", fashion.fit(Reader(), fashion.load("train").first(6000), 3, seed, 0.2))


class Reader(nn.Module):
    """An LSTM layer that reads pictures row by row, and a classifier on its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(28, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores [n, 10] of pictures [n, 1, 28, 28]."""
        scores: torch.Tensor = self.head(self.lstm(x[:, 0].contiguous())[0][:, -1])
        return scores


def _matrices(name: str, module: nn.Module) -> Iterator[tuple[str, Array]]:
    """The LSTM weights of a module."""
    for key, value in module.named_parameters():
        if "weight_ih" in key or "weight_hh" in key:
            yield f"{name} {key}", np.abs(value.detach().double().numpy())


def _recurrent(name: str) -> Iterator[tuple[str, Array]]:
    """The LSTM weights of an ONNX file, those inside of its branches too."""
    import onnx

    model = onnx.load(material.path(f"{name}.onnx"))
    waiting, found = [model.graph], dict[str, Array]()
    nodes = []
    while waiting:
        graph = waiting.pop()
        found |= {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                found[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
            nodes += [node] if node.op_type == "LSTM" else []
            waiting += [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    seen: set[bytes] = set()
    for node in nodes:
        for kind, value in zip("WR", node.input[1:3], strict=True):
            if value in found and found[value].tobytes() not in seen:  # branches hold the same ones
                seen.add(found[value].tobytes())
                yield f"{name} {kind}{len(seen)}", np.abs(found[value][0].astype(np.float64))


def rows(seed: int) -> Iterator[common.Row]:
    """A row for each weight and density."""
    for name, magnitude in weights(seed):
        for size in BLOCKS:
            formula = 1 - sum(1 / i for i in range(1, size + 1)) / (1 + np.log(size))
            shown: Mapping[str, float] = patterns(magnitude, size)
            yield {
                "weight": name, "shape": list(magnitude.shape), "one_of": size, "formula": float(formula), **shown,
            }  # fmt: skip


def main() -> None:
    """Append JSON lines, print a table."""
    parser = common.parser(__doc__, "retained.jsonl")
    options = parser.parse_args()
    around, found = common.circumstances(options.seed), []
    for row in rows(options.seed):
        common.append(options.output, [{**around, **row, "deck": DECK}])
        found.append(row)
    print(common.table(list(found[0]), [list(row.values()) for row in found]))


if __name__ == "__main__":
    main()
