"""Detectors as people bring them: pruned to half, trained a step, exported, run in ONNX Runtime, built into a library.

    python -m bench.reach.detectors                   all of them, fresh and after a run of their own
    python -m bench.reach.detectors --only 'yolo*'    some of them
    python -m bench.reach.detectors --summary         the table alone, from the rows there are

YOLO v5 to 12 and RT-DETR come from the configurations of `ultralytics`, a package for measuring only, which is put into
bench/.material without what it depends on; SSD, RetinaNet and FCOS are torchvision's networks without the boxes that
follow them. Weights are drawn. Each journey is a process of its own that is stopped at a time limit. It is **right** if
every step was: half of the MACs under the law, the user's model copied and saved afterwards, finite gradients and a
step, the ONNX file and the library with the module's numbers. Else the first step that failed says why. Where they
differ, and choose the largest scores on the way, the module is given their choices, if its own scores say that these
are as good (chosen.py); the row counts them.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import importlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import secateur
from bench.lib import common, peers
from bench.reach.answers import built, exported, tensors

SIZE = 160  # pixels a side
SIZES = {"ssd300_vgg16": 300}  # of networks that do not run at fewer
WAYS = ("fresh", "used")
Make = Callable[[], nn.Module]


class Core(nn.Module):
    """A detector of torchvision: backbone and head, for pictures as they are; one tensor for each kind of answer."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.get_submodule("backbone"), detector.get_submodule("head")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.backbone(x)
        features = [found] if isinstance(found, torch.Tensor) else list(found.values())
        return tuple(self.head(features).values())


def ultralytics(kind: str, config: str) -> Make:
    """A network of its configuration."""

    def make() -> nn.Module:
        peers.ultralytics()
        tasks = importlib.import_module("ultralytics.nn.tasks")
        model: nn.Module = getattr(tasks, kind)(config, verbose=False)
        return model

    return make


def torchvision(name: str) -> Make:
    """A network of this name, with drawn weights."""

    def make() -> nn.Module:
        from bench.data.torchvision_shim import models

        made = getattr(models.detection, name)(weights=None, weights_backbone=None, num_classes=20)
        return Core(made)

    return make


SUBJECTS: dict[str, Make] = {
    **{f"yolo{v}n": ultralytics("DetectionModel", f"yolo{v}n.yaml") for v in ("v5", "v8", "v10", "11", "12")},
    "yolov8n-seg": ultralytics("SegmentationModel", "yolov8n-seg.yaml"),
    "yolov8n-pose": ultralytics("PoseModel", "yolov8n-pose.yaml"),
    "yolov8n-cls": ultralytics("ClassificationModel", "yolov8n-cls.yaml"),
    "rtdetr-resnet50": ultralytics("RTDETRDetectionModel", "rtdetr-resnet50.yaml"),
    "ssdlite320_mobilenet_v3_large": torchvision("ssdlite320_mobilenet_v3_large"),
    "ssd300_vgg16": torchvision("ssd300_vgg16"),
    "retinanet_resnet50_fpn": torchvision("retinanet_resnet50_fpn"),
    "fcos_resnet50_fpn": torchvision("fcos_resnet50_fpn"),
}


def journey(name: str, way: str, seed: int, build: bool, tell: Callable[[str], None]) -> common.Row:
    """What came of one detector; ``tell`` is given each step as it begins. ``build``: a library as well."""
    torch.manual_seed(seed)
    tell("make")
    model = SUBJECTS[name]().eval()
    size = SIZES.get(name, SIZE)
    x = torch.rand(1, 3, size, size)
    if way == "used":
        with torch.no_grad():
            model(x)
    tell("compile")
    start = time.perf_counter()
    slim = secateur.compile(model, "l1", example_inputs=(x,), macs=0.5, seed=seed)
    report = slim.report
    assert report.after is not None and report.verification is not None
    row: common.Row = {
        "compile_s": round(time.perf_counter() - start, 1), "macs": [report.before.macs, report.after.macs],
        "law": [report.verification.law, report.verification.max_rel_err], "remarks": list(report.remarks),
    }  # fmt: skip
    assert report.after.macs <= 0.5 * report.before.macs, "more than half of the MACs is left"
    tell("copy")
    untouched(model, x)
    tell("train")
    module = slim.module()
    row["batch"] = trained(module, x)
    tell("export")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slim.onnx"
        slim.save(path)
        row["onnx"], row["onnx_choices"] = exported(module, path, x)
    if not build:
        return row
    tell("build")
    library = slim.build()
    row["kernels"] = dict(library.metadata.kernels)
    tell("library")
    row["library"], row["library_choices"] = built(module, library, slim.graph, x)
    return row


def untouched(model: nn.Module, x: torch.Tensor) -> None:
    """The user's own model copies, saves and runs as before."""
    from torch._subclasses import FakeTensor

    for path, part in model.named_modules():
        held = [v for v in vars(part).values() if isinstance(v, (list, tuple, dict))]
        inside = [i for v in held for i in (v.values() if isinstance(v, dict) else v)]
        fake = [v for v in [*vars(part).values(), *inside] if isinstance(v, FakeTensor)]
        assert not fake, f"'{path}' holds a FakeTensor"
    with torch.no_grad():
        copy.deepcopy(model)(x)
    torch.save(model, io.BytesIO())


def trained(module: nn.Module, x: torch.Tensor) -> int:
    """One step of SGD. Returns the batch that it was made with: two pictures where the network takes them."""
    module.train()
    try:
        outputs = module(torch.cat([x, x.flip(3)]))
        batch = 2
    except (RuntimeError, AssertionError, ValueError):
        outputs, batch = module(x), 1
    parts = [t.float().square().mean() for t in tensors(outputs) if t.is_floating_point() and t.requires_grad]
    torch.stack(parts).sum().backward()  # type: ignore[no-untyped-call]
    missing = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert len(missing) < sum(1 for _ in module.parameters()), "no parameter has a gradient"
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(g).all()) for g in grads), "a gradient is not finite"
    before = [p.detach().clone() for p in module.parameters()]
    torch.optim.SGD(module.parameters(), 1e-5).step()
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)), "nothing was trained"
    module.eval()
    return batch


def child(name: str, way: str, seed: int, build: bool) -> None:
    """One journey, as a JSON line."""
    step = ["start"]
    try:
        row = journey(name, way, seed, build, lambda what: step.__setitem__(0, what)) | {"status": "right"}
    except Exception as error:
        text = " ".join(str(error).split())
        row = {"status": "failed", "step": step[0], "reason": f"{type(error).__name__}: {text}"[:600]}
    print(json.dumps(row))


def measure(name: str, way: str, seed: int, build: bool, timeout: float) -> common.Row:
    """The row of one journey, in a process of its own."""
    command = [sys.executable, "-m", "bench.reach.detectors", "--child", name, way, "--seed", str(seed)]
    command += [] if build else ["--no-build"]
    done = common.run(command, timeout=timeout, threads=1)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    row: common.Row = {"detector": name, "way": way, "cpu_s": round(done.cpu_seconds, 1)}
    if lines:
        told: common.Row = json.loads(lines[-1])
        return row | told
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    ended = f"stopped at {timeout:g} s" if done.code is None else f"exit code {done.code}: {last}"
    return row | {"status": "failed", "step": "process", "reason": ended[:600]}


def summary(rows: list[common.Row]) -> str:
    """A line for each journey."""
    cells = []
    for row in rows:
        before, after = row.get("macs", (0, 0))
        left = f"{after / before:.1%}" if before else "-"
        worst = max((row[where] for where in ("onnx", "library") if where in row), default=None)
        built = "built" if "library" in row else "-"
        why = f"{row['step']}: {row['reason']}"[:120] if "reason" in row else ""
        cells.append([row["detector"], row["way"], row["status"], left, worst, built, row["cpu_s"], why])
    right = sum(row["status"] == "right" for row in rows)
    head = ["detector", "way", "status", "MACs left", "error", "library", "CPU s", ""]
    return common.table(head, cells) + f"\n\n{right} of {len(rows)} journeys are right"


def main() -> int:
    """Measure the journeys asked for, then print the summary of the newest rows."""
    parser = common.parser(__doc__, "detectors.jsonl")
    parser.add_argument("--only", default="*", metavar="GLOB", help="detectors by name")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="as made, or run once before")
    parser.add_argument("--timeout", type=float, default=900, metavar="S", help="seconds of a journey (default 900)")
    parser.add_argument("--no-build", action="store_true", help="stop before the library")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "WAY"), default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, way = arguments.child
        child(name, way, arguments.seed, not arguments.no_build)
        return 0
    here = common.circumstances(arguments.seed)
    for name in SUBJECTS if not arguments.summary else ():
        for way in arguments.ways if fnmatch.fnmatch(name, arguments.only) else ():
            row = measure(name, way, arguments.seed, not arguments.no_build, arguments.timeout)
            common.append(arguments.output, [row | here])
            print(
                f"{name:30} {way:6} {row['status']:7} {row.get('step', '')} {row.get('reason', '')}"[:250], flush=True
            )
    newest = {(row["detector"], row["way"]): row for row in common.read(arguments.output)}
    rows = [newest[name, way] for name in SUBJECTS for way in WAYS if (name, way) in newest]
    print(summary(rows))
    return int(any(row["status"] != "right" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
