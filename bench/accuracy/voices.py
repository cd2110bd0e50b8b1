"""Half of the weights of silero-vad and Resemblyzer set to zero without retraining: areas under the ROC curve.

    python -m bench.accuracy.voices [--by magnitude shares moments] [--quick]

silero-vad (6.2.3, the 16 kHz file that reads a sequence) says whether there is speech in 32 ms. Resemblyzer's encoder
(0.1.4, three LSTM layers of 256 units) says by cosines whether two recordings are of one speaker. Each pattern sets a
share of the weights of every layer to zero by magnitude, or by squares as shares of their row's sum: convolutions
(the fixed Fourier transform is left alone), linear layers and LSTM weights. No data, no labels, nothing is solved or
trained; or, for Resemblyzer by moments, what is left is solved on other prompts, 8 of each set, without labels.

What they are judged on is made of Debian's telephone prompts and music (`bench.data.prompts`: five sets of prompts,
four speakers, five pieces of music, all at 8 kHz read as 16). *Speech*: 40 prompts of each set, 2 to 8 s long, drawn
by the seed, each with a piece of the music at a level ``LEVEL`` dB below its own; 32 ms count as speech where the
prompt alone is within 30 dB of its loudest 32 ms, and are left out otherwise. *No speech*: as many pieces of music of
4 s, at the level that the music had. *Speakers*: the 1.6 s of most energy of 40 prompts of each set; all pairs, of
one speaker (Allison Smith's English and Spanish are one) or of two. Whether prompts differ by speaker or by studio
nobody can tell here, so it is a comparison of patterns, not a figure for the networks. `--quick`: 8 of each, to
out/voices-quick.jsonl.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

import secateur
from bench.data import material, prompts
from bench.lib import common
from bench.nets import voice_nets
from secateur.ir import Array, Graph
from secateur.ir.exporters.torch.module import Session, evaluate
from secateur.passes.context import Calibration, in_context
from secateur.passes.sparsify import Sparsified, Sparsify

SILERO, CONTEXT, CHUNK = "silero_vad_16k_sequence", 64, 512
COUNT, LEVEL, QUIET, MUSIC = 40, 0.0, 30.0, 4.0
BLOCKS, SHARES, LANES = ("irregular", "darb", "bmwm", "auto", "4x4"), (0.5, 0.7), 8
BY = ("magnitude", "shares", "moments")
OTHERS, FEW = 1000, 8  # the seed and the number of the prompts of each set that moments are taken from


def area(yes: Array, no: Array) -> float:
    """The share of pairs (one of ``yes``, one of ``no``) in which the first is larger; half for equal ones."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([yes, no]))
    return float((ranks[: len(yes)].sum() - len(yes) * (len(yes) + 1) / 2) / (len(yes) * len(no)))


@dataclass(frozen=True, eq=False)
class Clip:
    """What silero-vad reads, f32[chunks, 576], and which chunks are speech (1), none (0) or left out (-1)."""

    chunks: Array
    labels: Array


def _chunks(samples: Array) -> Array:
    """With the end of the chunk before in front of each."""
    count = len(samples) // CHUNK
    wide = np.concatenate([np.zeros(CONTEXT, np.float32), samples[: count * CHUNK]])
    return np.stack([wide[i * CHUNK : i * CHUNK + CONTEXT + CHUNK] for i in range(count)])


def _powers(samples: Array) -> Array:
    count = len(samples) // CHUNK
    found: Array = (samples[: count * CHUNK].reshape(count, CHUNK) ** 2).mean(1) + 1e-12
    return found


def _drawn(random: np.random.Generator, count: int, least: float, most: float) -> Iterator[tuple[str, Array]]:
    """(speaker, samples) of so many prompts of each set."""
    for voice, speaker in prompts.VOICES.items():
        files = prompts.prompts(voice, least, most)
        for index in sorted(random.permutation(len(files))[:count]):
            yield speaker, prompts.read(files[index])


def clips(seed: int, count: int) -> list[Clip]:
    """Speech over music, and music alone."""
    random, pieces = np.random.default_rng(seed), [prompts.read(f) for f in prompts.music()]
    found = []

    def excerpt(length: int, power: float) -> Array:
        """Of the music, at this mean power."""
        piece = pieces[int(random.integers(len(pieces)))]
        first = int(random.integers(len(piece) - length))
        part = piece[first : first + length]
        return part * np.float32(np.sqrt(power / max(float((part**2).mean()), 1e-9)))

    for _, samples in _drawn(random, count, 2.0, 8.0):
        powers = _powers(samples)
        loud = powers > powers.max() / 10 ** (QUIET / 10)
        level = float(powers[loud].mean()) / 10 ** (LEVEL / 10)
        found.append(Clip(_chunks(samples + excerpt(len(samples), level)), np.where(loud, 1, -1)))
        alone = _chunks(excerpt(int(MUSIC * prompts.RATE), level))
        found.append(Clip(alone, np.zeros(len(alone), np.int64)))
    return found


def voices(seed: int, count: int) -> tuple[Array, Array]:
    """(f32[recordings, 160, 40] in mel bands, the speaker of each)."""
    random, found, speakers = np.random.default_rng(seed), [], []
    names = list(dict.fromkeys(prompts.VOICES.values()))
    width = voice_nets.FRAMES * voice_nets.HOP
    for speaker, samples in _drawn(random, count, 2.0, 8.0):
        power = np.cumsum(np.append(0.0, samples.astype(np.float64) ** 2))
        first = int(np.argmax(power[width:] - power[:-width]))
        part = samples[first : first + width]
        level = np.float32(10 ** (-30 / 20) / max(float(np.sqrt((part**2).mean())), 1e-9))  # as Resemblyzer's own
        found.append(voice_nets.mels(part * level)[: voice_nets.FRAMES])
        speakers.append(names.index(speaker))
    return np.stack(found), np.array(speakers)


def speech(graph: Graph, of: list[Clip]) -> float:
    """The area of chunks with speech next to chunks without any."""
    state = np.zeros((1, 1, 128), np.float32)
    names, session = [value.name for value in graph.inputs], Session(graph)
    scores = np.concatenate([session.run(dict(zip(names, (c.chunks, state, state), strict=True)))[0] for c in of])
    labels = np.concatenate([c.labels for c in of])
    return area(scores[labels == 1], scores[labels == 0])


def speakers(graph: Graph, of: tuple[Array, Array]) -> float:
    """The area of pairs of one speaker next to pairs of two."""
    recordings, who = of
    (vectors,) = evaluate(graph, {graph.inputs[0].name: recordings})
    first, second = np.triu_indices(len(who), 1)
    cosines = np.einsum("nc,nc->n", vectors[first], vectors[second])
    same = who[first] == who[second]
    return area(cosines[same], cosines[~same])


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, its layers that stay, how to judge it, and other recordings, of which nobody says what they hold.

    Of silero-vad there are none: its states have no sample for each chunk, which calibration data need.
    """

    name: str
    graph: Graph
    fixed: tuple[str, ...]
    judge: Callable[[Graph], float]
    others: Calibration | None = None


def networks(seed: int, count: int) -> Iterator[Subject]:
    """All of them."""
    heard = clips(seed, count)
    graph = secateur.load(material.path(f"{SILERO}.onnx"))
    fixed = next(n.name for n in graph.nodes if n.op == "conv")
    yield Subject("silero-vad", graph, (fixed,), lambda g: speech(g, heard))
    recordings = voices(seed, count)
    encoder = secateur.trace(voice_nets.resemblyzer(), (torch.from_numpy(recordings[0]),))
    first = next(n.name for n in encoder.nodes if n.op == "lstm")
    known = Calibration(list(np.array_split(voices(seed + OTHERS, FEW)[0], FEW)))
    stay: dict[str, tuple[str, ...]] = {"Resemblyzer": (), "Resemblyzer, first LSTM layer dense": (first,)}
    for name, layers in stay.items():
        yield Subject(name, encoder, layers, lambda g: speakers(g, recordings), known)


def rows(seed: int, count: int, by: str) -> Iterator[Mapping[str, object]]:
    """The dense networks and all patterns; the network's name says ``by`` what weights go, if not by magnitude."""
    for subject in networks(seed, count):
        name = subject.name if by == "magnitude" else f"{subject.name}, by {by}"
        if by == "moments" and subject.others is None:
            continue
        graph = in_context(subject.graph, calibration=subject.others)
        yield {"network": name, "block": "dense", "sparsity": 0.0, "zeros": 0.0, "auc": subject.judge(graph)}
        for share in SHARES:
            for block in BLOCKS:
                found = Sparsify(share, block, by, LANES, subject.fixed)(graph)
                note = found.note(Sparsified)
                assert note is not None
                sizes = [found.weights[row.weight].size for row in note.rows]
                zeros = sum(r.sparsity * n for r, n in zip(note.rows, sizes, strict=True)) / sum(sizes)
                yield {"network": name, "block": block, "sparsity": share, "zeros": zeros, "auc": subject.judge(found)}


def main() -> int:
    """Append JSON lines, print them."""
    parser = common.parser(__doc__, "voices.jsonl")
    parser.add_argument("--seeds", type=int, default=3, help="draws of prompts and music (default 3)")
    parser.add_argument("--by", nargs="*", default=list(BY), choices=BY)
    parser.add_argument("--quick", action="store_true", help="8 recordings of each set, one draw")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, count, output = options.seeds, COUNT, options.output
    if options.quick:
        seeds, count, output = 1, 8, common.ROOT / "out" / "voices-quick.jsonl"
    for seed in range(seeds):
        around = common.circumstances(seed)
        for row in (row for by in options.by for row in rows(seed, count, by)):
            common.append(output, [{**around, **row, "recordings": count, "level": LEVEL}])
            print(seed, *row.values(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
