"""Networks that come with their weights and without data: pruned, mended without labels, and judged by what they do.

    python -m bench.accuracy.pretrained [--only mobilenet_v2,open_nsfw,ppocr_rec] [--examples 256]
    python -m bench.accuracy.pretrained --only ppocr_rec --policy SPEC [--left 0.7]
        another policy than those of CELLS; one that only rewrites says itself what is left (low_rank{macs=70%},refit)
    python -m bench.accuracy.pretrained --photos scikit-image
        calibrate with crops of ten photos in place of GCompris's

MobileNetV2 on foolbox's twenty labelled photos: how many are right, and on how many it says what the dense one says.
open_nsfw on the same photos: how far its two logits are off, as norms. PP-OCR's recogniser on 200 rendered lines: wrong
characters of a hundred (lines.py). None is calibrated on what judges it: the first two see crops of GCompris's photos
or of scikit-image's ten, the third other lines. `cpu_s` is what a row cost on one thread. One that was stopped goes on
where it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import nn

import secateur
from bench.accuracy.pretrained_tables import DENSE, key
from bench.data import gcompris, imagenet, lines, material
from bench.data.trained_subjects import bgr, open_nsfw
from bench.lib import common
from secateur.ir import Array, Graph
from secateur.policy import from_spec

EXAMPLES, JUDGED, TOGETHER = 256, 200, 16
RESIDUAL = "group_lasso,slim,refit{ridge=auto,residual=true}"
SOLVED = "obs,knapsack{loss=sum},slim,refit{ridge=auto}"
BOTH = "obs,knapsack{loss=sum},slim,refit{ridge=auto,residual=true}"
# The first layer stays, and what blocks add up: what is wrong there reaches every layer after it.
WHOLE = f"couple{{protect=[*branch2c*,*proj_shortcut*,Conv__440]}},{BOTH}"
Run = Callable[[Array], Array]  # examples to the first output
Images = Sequence[Image.Image]
PHOTOS: Mapping[str, Callable[[], Images]] = MappingProxyType(
    {"gcompris": gcompris.photos, "scikit-image": imagenet.natural}
)


@dataclass(frozen=True)
class Subject:
    """A network, unlabelled examples to calibrate with, and how what is left of it is judged."""

    model: nn.Module | Graph
    examples: Array
    judge: Callable[[Run], common.Row]


def mobilenet_v2(count: int, images: Images) -> Subject:
    """ImageNet's classes of the twenty photos."""
    network = imagenet.NETWORKS["mobilenet_v2"]
    module = network.make()
    pixels, labels = imagenet.judged()
    x, labelled = network.preparation(pixels).numpy(), labels.numpy()
    wanted = _dense(module, x)

    def judge(run: Run) -> common.Row:
        found = run(x)
        right, same = (float((found.argmax(1) == of).mean()) for of in (labelled, wanted.argmax(1)))
        return {"right": right, "agreement": same, "logit_error": _apart(found, wanted)}

    return Subject(module, network.preparation(imagenet.crops(count, 0, images)).numpy(), judge)


def nsfw(count: int, images: Images) -> Subject:
    """The two logits of the twenty photos."""
    graph, (judged, crops) = open_nsfw(), (_bgr(p) for p in (imagenet.judged()[0], imagenet.crops(count, 0, images)))
    wanted = _dense(graph, judged)
    return Subject(graph, crops, lambda run: {"logit_error": _apart(run(judged), wanted)})


def recogniser(count: int, images: Images) -> Subject:
    """What lines say; no photos."""
    (judged, said), (others, _) = lines.lines(JUDGED, 0), lines.lines(count, 1)
    graph = secateur.load(material.path(lines.FILE))
    return Subject(graph, others, lambda run: {"character_error": lines.error_rate(run(judged), said)})


SUBJECTS: Mapping[str, Callable[[int, Images], Subject]] = MappingProxyType(
    {"mobilenet_v2": mobilenet_v2, "open_nsfw": nsfw, "ppocr_rec": recogniser}
)
CELLS: Mapping[str, tuple[tuple[float, ...], tuple[str, ...]]] = MappingProxyType({
    "mobilenet_v2": ((0.85, 0.7), (RESIDUAL,)),
    "open_nsfw": ((0.5,), (BOTH, WHOLE)),
    "ppocr_rec": ((0.7,), ("group_lasso,slim,refit", SOLVED)),
})  # fmt: skip


def row(subject: Subject, policy: str, left: float) -> common.Row:
    """Prune, mend and judge."""
    batches = [subject.examples[i : i + TOGETHER] for i in range(0, len(subject.examples), TOGETHER)]
    pruned = from_spec(policy).criterion is not None
    start = time.process_time()
    slim = secateur.compile(
        subject.model, policy, example_inputs=(torch.from_numpy(subject.examples[:1]),), calibration=batches,
        macs=left if pruned else None, round_to=1 if pruned else None, holdout=0,
    )  # fmt: skip
    spent, report = time.process_time() - start, slim.report
    left_of = 1.0 if report.after is None else report.after.macs / report.before.macs
    done = {"macs_left": left_of, "cpu_s": round(spent, 1)}
    return done | subject.judge(_batched(slim))


def _batched(run: Run) -> Run:
    """A few examples at a time."""
    return lambda x: np.concatenate([run(x[i : i + TOGETHER]) for i in range(0, len(x), TOGETHER)])


def _dense(model: nn.Module | Graph, x: Array) -> Array:
    """What the network as it is says."""
    return _batched(secateur.compile(model, DENSE, example_inputs=(torch.from_numpy(x[:1]),), verify=False))(x)


def _bgr(pixels: torch.Tensor) -> Array:
    """As open_nsfw was trained, of pixels in [0, 1]."""
    return bgr(imagenet.NETWORKS["mobilenet_v2"].preparation(pixels)).numpy()


def _apart(found: Array, wanted: Array) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def main() -> int:
    """Measure what is missing."""
    parser = common.parser(__doc__, "pretrained.jsonl")
    parser.add_argument("--only", default=",".join(SUBJECTS), help="networks (default all)")
    parser.add_argument("--policy", help="one policy in place of the table's")
    parser.add_argument("--left", type=float, help="one share of the multiply-accumulates in place of the table's")
    parser.add_argument("--photos", choices=PHOTOS, default="gcompris", help="that crops are of (default gcompris)")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help=f"to calibrate with (default {EXAMPLES})")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = {key(r) for r in common.read(options.output)}
    for name in options.only.split(","):
        shares, policies = CELLS[name]
        lefts = [options.left] if options.left else shares
        pruned = [(left, policy) for left in lefts for policy in ([options.policy] if options.policy else policies)]
        about = {"network": name, "examples": options.examples}
        about |= {} if name == "ppocr_rec" else {"photos": options.photos}
        asked_for = [about | {"left": left, "policy": policy} for left, policy in [(1.0, DENSE), *pruned]]
        missing = [asked for asked in asked_for if key(asked) not in done]
        subject = SUBJECTS[name](options.examples, PHOTOS[options.photos]()) if missing else None
        for asked in missing:
            assert subject is not None
            left, policy = float(str(asked["left"])), str(asked["policy"])
            found = common.circumstances(0) | asked | row(subject, policy, left)
            common.append(options.output, [found])
            print({k: v for k, v in found.items() if k not in common.circumstances(0)}, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
