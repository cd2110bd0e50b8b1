"""What closed forms make of trained layers: error before and after one pass of tuning, by rank or number of groups.

    python bench/from_trained.py [--networks fashion_resnet,open_nsfw,mobilenet_v2] [--seeds 3]
    python bench/from_trained.py --plot           draw docs/from_trained.svg from the rows

`separable`, `grouped`, `low_rank` and `regroup` replace every layer of a trained network that they fit and that costs
less afterwards. The weights' error is the median of the layers' relative Frobenius errors. The network's error,
before and after one pass: for the residual network trained here on Fashion-MNIST the share of wrong answers on its
10,000 test pictures, one pass being its training pictures once; for open_nsfw and MobileNetV2, which come without
training data, the relative error of the logits on six photos, one pass being 48 random crops of fourteen others with
the original's own logits as targets. What is there already is not computed again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import common
import fashion
import material
import photos
import rewrite_nets
from secateur.ir import Graph
from secateur.ir.exporters.torch import to_module
from secateur.ir.frontends.onnx import load
from secateur.ir.frontends.torch import trace
from secateur.passes import REWRITES, Pipeline, parse_spec
from secateur.passes.analysis.cost import cost
from secateur.passes.rewrite.layers import Rewritten

PICTURE = common.ROOT / "docs" / "from_trained.svg"
LEVELS = {
    "separable": ("rank", (1, 2, 4)),
    "grouped": ("groups", (2, 4, 8)),
    "low_rank": ("ratio", ("10%", "25%", "50%")),
    "regroup": ("groups", (2, 4, 8)),
}
NETWORKS = ("fashion_resnet", "open_nsfw", "mobilenet_v2")
TRAINING, HELD = 14, 6  # photos
CROPS, RATE = 48, 3e-4  # of rates from 3e-5 to 1e-3 the one that left the least error on held-out photos
EXAMPLES, EPOCHS = 15_000, 2
TICKS = (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2, 5)
RGB_MEANS = (104.0, 117.0, 123.0)  # of open_nsfw's blue, green and red


@dataclass(frozen=True)
class Subject:
    """A trained network, pictures to tune on and pictures to look at."""

    graph: Graph
    train: fashion.Data
    test: fashion.Data
    classes: bool  # are there labels, or only the original's own answers?


def fashion_resnet(seed: int) -> Subject:
    """The plain network of rewrite_nets, trained, from the material's folder if it was trained before."""
    train, test = fashion.load("train").first(EXAMPLES), fashion.load("t10k")
    torch.manual_seed(seed)
    module = rewrite_nets.plain()
    file = material.ROOT / "trained" / f"plain{rewrite_nets.WIDTH}-{seed}-{EXAMPLES}x{EPOCHS}.pth"
    if file.exists():
        module.load_state_dict(torch.load(file, weights_only=True))
    else:
        fashion.fit(module, train, EPOCHS, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(module.state_dict(), file)
    return Subject(rewrite_nets.graph_of(module), train, test, True)


def crops(graph: Graph, seed: int) -> tuple[Tensor, Tensor]:
    """Random crops of the first photos, and the other photos, as this network takes them."""
    pictures = torch.stack([photos.load(path) for path, _ in material.photos()])
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(CROPS):
        size = int(torch.randint(112, 225, (1,), generator=generator))
        top, left = (int(torch.randint(0, 225 - size, (1,), generator=generator)) for _ in range(2))
        part = pictures[i % TRAINING : i % TRAINING + 1, :, top : top + size, left : left + size]
        made.append(nn.functional.interpolate(part, (224, 224), mode="bilinear"))
    both = torch.cat(made), pictures[TRAINING : TRAINING + HELD]
    return both if graph.inputs[0].shape[1] == 3 else (_bgr(both[0]), _bgr(both[1]))


def _bgr(x: Tensor) -> Tensor:
    """ImageNet's scaling undone: NHWC, blue first, means taken away, as open_nsfw was trained."""
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (photos.MEAN, photos.DEVIATION))
    return 255 * (x * deviation + mean).flip(1).permute(0, 2, 3, 1) - torch.tensor(RGB_MEANS)


def pretrained(name: str, seed: int) -> Subject:
    """open_nsfw or MobileNetV2 up to its logits, and the photos."""
    if name == "open_nsfw":
        graph = load(material.path("open-nsfw.onnx"))
        last = graph.producer[graph.outputs[0]]
        graph = graph.rewrite(outputs=[str(last.inputs[0])]) if last.op == "softmax" else graph
    else:
        graph = trace(photos.mobilenet_v2(), (torch.zeros(1, 3, 224, 224),))
    train, test = crops(graph, seed)
    original = to_module(graph)
    with torch.no_grad():
        wanted = [torch.cat([original(x) for x in torch.split(part, 1)]) for part in (train, test)]
    return Subject(graph, fashion.Data(train, wanted[0]), fashion.Data(test, wanted[1]), False)


def error(module: nn.Module, subject: Subject) -> float:
    """The share of wrong answers, or the relative error of the logits."""
    if subject.classes:
        return 1 - fashion.accuracy(module, subject.test)
    with torch.inference_mode():
        logits = torch.cat([module(x) for x in torch.split(subject.test.x, 1)])
    return float((logits - subject.test.y).norm() / subject.test.y.norm())


def tune(module: nn.Module, subject: Subject, seed: int) -> None:
    """One pass over the training pictures. Without labels batch norms keep their statistics: four crops have none."""
    if subject.classes:
        fashion.fit(module, subject.train, 1, seed, rate=fashion.RATE / 5)
        return
    optimiser = torch.optim.Adam(module.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=CROPS // 4 + 1)
    for x, wanted in zip(torch.split(subject.train.x, 4), torch.split(subject.train.y, 4), strict=True):
        outputs = torch.cat([module(one) for one in torch.split(x, 1)])
        loss = nn.functional.mse_loss(outputs, wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def measure(subject: Subject, spec: str, seed: int) -> common.Row:
    """One rewrite of one network."""
    graph = Pipeline(parse_spec(spec, REWRITES))(subject.graph)
    note = graph.note(Rewritten)
    assert note is not None
    done = [r for r in note.rows if r.reason is None]
    module = to_module(graph)
    before = error(module, subject)
    tune(module, subject, seed)
    costs = [cost(g) for g in (subject.graph, graph)]
    return {
        "layers": len(done), "left": len(note.rows) - len(done),
        "weights_error": float(np.median([r.error for r in done])),
        "macs_share": costs[1].macs / costs[0].macs, "params_share": costs[1].params / costs[0].params,
        "original": error(to_module(subject.graph), subject), "before": before, "after": error(module.eval(), subject),
    }  # fmt: skip


def cells(name: str) -> Iterator[tuple[str, Any, str]]:
    """Rewrite, level and spec. MobileNetV2's windows are depthwise already: only its 1x1 can be changed."""
    for rewrite, (option, levels) in LEVELS.items():
        for level in levels:
            if name != "mobilenet_v2" or rewrite in ("low_rank", "regroup"):
                yield rewrite, level, f"{rewrite}{{{option}={level}}}"


def draw(rows: list[common.Row]) -> None:
    """A panel a network: error over what remains of the multiply-accumulates, dashed before tuning and solid after."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    from plots import FIXED

    colours = dict(zip(LEVELS, ("#0072b2", "#d55e00", "#009e73", "#cc79a7"), strict=True))
    names = [n for n in NETWORKS if any(r["network"] == n for r in rows)]
    with matplotlib.rc_context(FIXED):
        figure, panels = pyplot.subplots(
            1, len(names), figsize=(4 * len(names), 3.6), squeeze=False, layout="constrained"
        )
        for axes, name in zip(panels[0], names, strict=True):
            for rewrite in LEVELS:
                mine = [r for r in rows if r["network"] == name and r["rewrite"] == rewrite]
                levels = list(dict.fromkeys(r["level"] for r in mine))
                grouped = [[r for r in mine if r["level"] == level] for level in levels]
                x = [float(np.mean([r["macs_share"] for r in g])) for g in grouped]
                order = np.argsort(x)
                for key, style in (("before", ":"), ("after", "-")):
                    y = [float(np.mean([r[key] for r in g])) for g in grouped]
                    axes.plot(
                        [x[i] for i in order], [y[i] for i in order], style, marker="o", markersize=3,
                        color=colours[rewrite], label=rewrite if key == "after" else None,
                    )  # fmt: skip
                for i, g in enumerate(grouped):
                    y_after = float(np.mean([r["after"] for r in g]))
                    axes.annotate(str(levels[i]), (x[i], y_after), (3, 3), textcoords="offset points", fontsize=6)
            original = float(np.mean([r["original"] for r in rows if r["network"] == name]))
            if original > 1e-3:  # logits differ from themselves by nothing
                axes.axhline(original, color="black", linewidth=0.6)
            axes.set_title(name, fontsize=10)
            axes.set_xlabel("multiply-accumulates that remain")
            axes.set_ylabel("wrong answers" if name == "fashion_resnet" else "relative error of the logits")
            axes.set_yscale("log")
            ticks = [t for t in TICKS if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]]
            axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
            axes.minorticks_off()
        marks, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(marks, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(PICTURE, metadata={"Date": None})
        pyplot.close(figure)


def main() -> int:
    """Measure what has no row yet, print and append; or draw."""
    parser = common.parser(__doc__, "from_trained.jsonl")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="with commas (default all)")
    parser.add_argument("--seeds", type=int, default=3, help="networks trained here (default 3); the others have one")
    parser.add_argument("--plot", action="store_true", help="only draw docs/from_trained.svg")
    arguments = parser.parse_args()
    if arguments.plot:
        draw(common.read(arguments.output))
        return 0
    torch.set_num_threads(1)
    key = ("network", "rewrite", "level", "of_seed")
    done = {tuple(r[k] for k in key) for r in common.read(arguments.output)}
    for name in arguments.networks.split(","):
        for seed in range(arguments.seeds if name == "fashion_resnet" else 1):
            todo = [c for c in cells(name) if (name, c[0], c[1], seed) not in done]
            subject = (fashion_resnet(seed) if name == "fashion_resnet" else pretrained(name, seed)) if todo else None
            for rewrite, level, spec in todo:
                assert subject is not None
                row = {"network": name, "rewrite": rewrite, "level": level, "of_seed": seed, "spec": spec}
                row |= measure(subject, spec, seed)
                common.append(arguments.output, [row | common.circumstances(seed)])
                print(
                    name,
                    seed,
                    spec,
                    *(f"{row[k]:.4f}" for k in ("weights_error", "macs_share", "before", "after")),
                    flush=True,
                )
    columns = ["network", "spec", "of_seed", "layers", "macs_share", "weights_error", "before", "after"]
    print(common.table(columns, [[r[c] for c in columns] for r in common.read(arguments.output)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
