"""Trained networks for from_trained.py: each with pictures to tune on, pictures to choose by, and pictures to judge by.

The three sets share no picture. The residual network that is trained here has Fashion-MNIST's labels; open_nsfw and
MobileNetV2 come without training data, so they have the original's own logits as targets: on random crops of fourteen
photos to tune on, on five photos of scikit-image to choose by, and on six other photos to judge by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bench.data import fashion, material, photos
from bench.nets import rewrite_nets
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import to_module
from secateur.ir.frontends.onnx.load import load
from secateur.ir.frontends.torch.trace import trace
from secateur.passes.compensate.refit import Refit
from secateur.passes.context import Calibration, in_context

TRAINING, HELD = 14, 6  # photos
CHOOSING = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")  # those in colour
CROPS, TOGETHER = 240, 4  # in one pass, and in one step
EXAMPLES, MORE, EPOCHS = 15_000, 2_000, 2  # Fashion-MNIST's: to train and tune on, to choose by, and passes
SEEN = 96  # crops on which layers are solved anew
SMALLEST = 1e-4  # root mean square that a weight's steps are counted from, where its own is less
RGB_MEANS = (104.0, 117.0, 123.0)  # of open_nsfw's blue, green and red


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained network and its three sets of pictures."""

    graph: Graph
    train: fashion.Data
    choose: fashion.Data
    test: fashion.Data
    classes: bool  # are there labels, or only the original's own answers?


def subject_of(name: str, seed: int) -> Subject:
    """The network of this name; the seed is that of its training, or of the crops. Raises MaterialError."""
    if name.startswith("fashion/"):
        return fashion_small(name.removeprefix("fashion/"), seed)
    return fashion_resnet(seed) if name == "fashion_resnet" else pretrained(name, seed)


def fashion_resnet(seed: int) -> Subject:
    """The plain network of rewrite_nets, trained, from the material's folder if it was trained before."""
    whole, test = fashion.load("train"), fashion.load("t10k")
    train = whole.first(EXAMPLES)
    choose = fashion.Data(whole.x[EXAMPLES : EXAMPLES + MORE], whole.y[EXAMPLES : EXAMPLES + MORE])
    torch.manual_seed(seed)
    module = rewrite_nets.plain()
    file = material.ROOT / "trained" / f"plain{rewrite_nets.WIDTH}-{seed}-{EXAMPLES}x{EPOCHS}.pth"
    if file.exists():
        module.load_state_dict(torch.load(file, weights_only=True))
    else:
        fashion.fit(module, train, EPOCHS, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(module.state_dict(), file)
    return Subject(rewrite_nets.graph_of(module), train, choose, test, True)


def fashion_small(name: str, seed: int) -> Subject:
    """A network of criteria_nets, trained on as many examples."""
    whole, test = fashion.load("train"), fashion.load("t10k")
    train = whole.first(EXAMPLES)
    choose = fashion.Data(whole.x[EXAMPLES : EXAMPLES + MORE], whole.y[EXAMPLES : EXAMPLES + MORE])
    module = fashion.trained(name, seed, train, EPOCHS)
    return Subject(trace(module, (test.x[:1],)), train, choose, test, True)


def pretrained(name: str, seed: int) -> Subject:
    """open_nsfw or MobileNetV2 up to its logits, and the photos."""
    if name == "open_nsfw":
        graph = open_nsfw()
    else:
        graph = trace(photos.mobilenet_v2(), (torch.zeros(1, 3, 224, 224),))
    labelled = torch.stack([photos.load(path) for path, _ in material.photos()])
    others = torch.stack([photos.load(material.path(f"natural_{name}")) for name in CHOOSING])
    sets = [crops(labelled[:TRAINING], seed), others, labelled[TRAINING : TRAINING + HELD]]
    if graph.inputs[0].shape[1] != 3:
        sets = [bgr(x) for x in sets]
    original = to_module(graph)
    with torch.no_grad():
        train, choose, test = (
            fashion.Data(part, torch.cat([original(x) for x in torch.split(part, 1)])) for part in sets
        )
    return Subject(graph, train, choose, test, False)


def open_nsfw() -> Graph:
    """The network up to its logits."""
    graph = load(material.path("open-nsfw.onnx"))
    last = graph.producer[graph.outputs[0]]
    return graph.rewrite(outputs=[str(last.inputs[0])]) if last.op == "softmax" else graph


def crops(pictures: Tensor, seed: int) -> Tensor:
    """f32[CROPS, 3, 224, 224]: squares of at least half a side, every other one mirrored, of one picture after the
    other."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(CROPS):
        size = int(torch.randint(112, 225, (1,), generator=generator))
        top, left = (int(torch.randint(0, 225 - size, (1,), generator=generator)) for _ in range(2))
        part = pictures[i % len(pictures)][None, :, top : top + size, left : left + size]
        part = part.flip(3) if i // len(pictures) % 2 else part
        made.append(nn.functional.interpolate(part, (224, 224), mode="bilinear"))
    return torch.cat(made)


def bgr(x: Tensor) -> Tensor:
    """ImageNet's scaling undone: NHWC, blue first, means taken away, as open_nsfw was trained."""
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (photos.MEAN, photos.DEVIATION))
    return 255 * (x * deviation + mean).flip(1).permute(0, 2, 3, 1) - torch.tensor(RGB_MEANS)


def error(module: nn.Module, data: fashion.Data, classes: bool) -> float:
    """The share of wrong answers, or the relative error of the logits."""
    if classes:
        return 1 - fashion.accuracy(module, data)
    with torch.inference_mode():
        logits = torch.cat([module(x) for x in torch.split(data.x, 1)])
    return float((logits - data.y).norm() / data.y.norm())


def constant(subject: Subject) -> tuple[float, float]:
    """What it is worth to answer every picture with the mean of the targets: on those tuned on, and to judge by."""
    mean = subject.train.y.mean(0)
    first, last = (float((mean - y).norm() / y.norm()) for y in (subject.train.y, subject.test.y))
    return first, last


def refitted(subject: Subject, graph: Graph) -> Graph:
    """`refit` on some crops: each convolution solved for the original's outputs, from what reaches it now.

    Fully connected layers stay as they are: 96 pictures say too little of a thousand columns.
    """
    feed = {graph.inputs[0].name: np.ascontiguousarray(subject.train.x[:SEEN].numpy())}
    known = in_context(graph, original=subject.graph, calibration=Calibration([feed]))
    after = Refit(examples=SEEN)(known)
    kept = {name for node in graph.nodes if node.op == "linear" for name in node.inputs[1:] if name is not None}
    return after.rewrite(weights={n: graph.weights[n] if n in kept else w for n, w in after.weights.items()})


def tune(module: nn.Module, subject: Subject, seed: int, rate: float) -> None:
    """One pass over the pictures to tune on; in eval mode afterwards.

    Without labels batch norms keep their statistics: four crops have none. ``rate`` is then a share of each weight's
    root mean square, as in Adafactor (Shazeer and Stern, 2018): Adam's steps are as large for every weight, and where
    batch norms were folded, weights are so small that 5e-6 for all led away from where tuning began.
    """
    if subject.classes:
        fashion.fit(module, subject.train, 1, seed, rate)
        return
    module.eval()
    order = torch.randperm(len(subject.train.x), generator=torch.Generator().manual_seed(seed)).view(-1, TOGETHER)
    weights = list(module.parameters())
    rates = [rate * max(SMALLEST, float(w.detach().square().mean().sqrt())) for w in weights]
    optimiser = torch.optim.Adam([{"params": [w], "lr": r} for w, r in zip(weights, rates, strict=True)])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=len(order) + 1)
    for batch in order:
        loss = nn.functional.mse_loss(module(subject.train.x[batch]), subject.train.y[batch])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
