"""How fast are libraries on a GPU, next to PyTorch's ways; without one, what share of the roofline is predicted.

    python -m bench.speed.gpu [--only GLOB] [--target cuda:sm_90|opencl] [--predict]

Where there is a GPU that runs a CUDA target, every network is run on it in each precision: by our library, its
launches replayed as a CUDA graph, and by PyTorch in channels-last (cuDNN, which tries its algorithms), by a CUDA graph
of that, and by torch.compile without and with CUDA graphs, in the same precision. Inputs lie on the device. They take
turns in one process; a run is timed from its launch until the device is done, and outputs are compared with the torch
executor's on the processor. Then each of our kernels is timed by the device's events, next to the roofline: its
arithmetic at the board's peak or its bytes, each operand once, at the bandwidth of its memory, whichever takes longer.
A kernel's time holds what lies between two kernels. ``--target opencl`` measures our library on an OpenCL device,
without PyTorch; peaks are known of the boards of ``gpu_roofline.py`` alone, and no share is said of others.

Where there is none, or with --predict, the share of the roofline of these boards is predicted by counting. No
measurement has checked it. It takes nvcc (pip install 'secateur[cuda]').
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

from bench.lib import common
from bench.lib.gpu_networks import LSTM, ZEROS, Subject, subject
from bench.lib.turns import kept, ratios, spread, take_turns
from bench.speed.gpu_peers import OnDevice, ours, torch_ways
from bench.speed.gpu_programs import Launched, Timed, built, by_kind
from bench.speed.gpu_roofline import BOARDS, Board, board_of, measured, predicted
from bench.speed.libraries import distance
from secateur.codegen.gpu_library import GpuLibrary

NETWORKS = (  # among them every kind of kernel
    "tv/resnet50", *ZEROS, "tv/mobilenet_v2", "tv/shufflenet_v2_x1_0", "tv/resnext50_32x4d", "tv/vit_b_32",
    "timm/resnet50_gn", "seg/lraspp_mobilenet_v3_large", LSTM,
)  # fmt: skip
PRECISIONS = {"tv/resnet50": ("f32", "tf32", "f16"), "tv/resnet50, 2:4": ("f16",), "tv/resnet50, 1:2": ("tf32",)}
BATCHES, SIDE, ROUNDS = (1, 16), 224, 30
LIMITS = {"f32": 1e-4, "tf32": 2e-2, "f16": 2e-2}  # of the largest output, from float32
NO_DEVICE = "No CUDA device is here: what follows is PREDICTED by counting, and no measurement has checked it."

Row = common.Row


def device_target() -> str | None:
    """The newest CUDA target whose code a GPU here runs."""
    from secateur.codegen.devices import cuda
    from secateur.codegen.targets import GPUS

    able = [name for name, t in GPUS.items() if t.triple == "cuda" and not cuda.missing(t.mcpu)]
    return able[-1] if able else None


def cases(only: str, seed: int, side: int) -> Iterator[tuple[Subject, int, str]]:
    """Networks, batches, precisions."""
    for name, batch in product(NETWORKS, BATCHES):
        if fnmatch.fnmatch(name, only):
            given = subject(name, seed, side, batch)
            for mode in PRECISIONS.get(name, ("f32",)):
                yield given, batch, mode


def head(kind: str, given: Subject, batch: int, mode: str, device: str) -> Row:
    """What a row is about."""
    shown = given.name if mode == "f32" else f"{given.name}, {mode}"
    return {"kind": kind, "case": f"{shown} on {device}, batch {batch}", "network": shown, "board": device,
            "batch": batch}  # fmt: skip


def measure(library: GpuLibrary, calls: list[Launched], given: Subject, mode: str, rounds: int, seed: int = 0,
            board: Board | None = None) -> Row:  # fmt: skip
    """Our library on its device, next to PyTorch where that has the same one; each of our calls."""
    import torch

    ways: dict[str, OnDevice] = {"secateur": ours(library, given.x)}
    if library.metadata.target.triple == "cuda" and torch.cuda.is_available():
        ways |= torch_ways(given.module, given.x, mode)
    errors = compared(ways, given)
    samples = take_turns(ways, rounds, seed)
    timed = timed_calls(library, calls, board or board_of(library.session.device), rounds)
    walls = {name: spread([sample.wall for sample in kept(s)]) for name, s in samples.items()}
    over = {name: [r.wall for r in ratios(s, samples["secateur"])] for name, s in samples.items() if name != "secateur"}
    return {
        "us": {name: {k: round(1e3 * v, 2) for k, v in found.items()} for name, found in walls.items()},
        "ratios": {name: spread(found) for name, found in over.items()},
        "errors": errors, "families": by_kind(timed),
        "calls": [[t.label, t.kind, round(t.seconds * 1e6, 2), t.share and round(t.share, 3), t.bound] for t in timed],
        "status": "right" if max(errors.values()) <= LIMITS[mode] else "wrong",
    }  # fmt: skip


def compared(ways: dict[str, OnDevice], given: Subject) -> dict[str, float]:
    """How far each is from the torch executor on the processor, in float32."""
    from secateur.ir.exporters.torch.module import evaluate

    wanted = list(evaluate(given.graph, {given.graph.inputs[0].name: given.x}))
    return {name: distance(way.outputs(), wanted) for name, way in ways.items()}


def timed_calls(library: GpuLibrary, calls: list[Launched], board: Board | None, rounds: int) -> list[Timed]:
    """The least time of each call, of all its launches together."""
    runs = [library.session.seconds() for _ in range(rounds)]
    left = iter([min(times) for times in zip(*runs, strict=True)])
    return [measured(call, sum(next(left) for _ in call.kernels), board) for call in calls]


def measurements(arguments: Any, target: str) -> Iterator[Row]:
    """A row for each case on the device of a target."""
    for given, batch, mode in cases(arguments.only, arguments.seed, arguments.side):
        if mode == "f32" or target != "opencl":
            library, calls = built(given.graph, target, mode)
            row = measure(library, calls, given, mode, arguments.rounds, arguments.seed)
            yield head("measurement", given, batch, mode, library.session.device) | row


def predictions(arguments: Any) -> Iterator[Row]:
    """A row for each case and board."""
    for (given, batch, mode), (title, board) in product(cases(arguments.only, arguments.seed, arguments.side),
                                                        BOARDS.items()):  # fmt: skip
        _, calls = built(given.graph, board.target, mode)
        timed = [predicted(one, board) for one in calls]
        yield head("prediction", given, batch, mode, title) | {"families": by_kind(timed), "status": "predicted"}


def show(row: Row) -> str:
    """A row for people: times, then calls and shares by kind of kernel."""
    lines = [f"{row['case']}: {row['status']}"]
    for name, times in row.get("us", {}).items():
        ratio = row["ratios"].get(name, {"median": 1.0})["median"]
        lines.append(f"  {name:26} {times['median']:9.1f} us  {ratio:6.2f} x ours  error {row['errors'][name]:.1e}")
    if row.get("calls"):
        lines.append(common.table(("layer", "kernel", "us", "share", "bound"), row["calls"]))
    kinds = [(kind, f["calls"], f["us"], _percent(f["share"]), _percent(f["occupancy"]))
             for kind, f in row["families"].items()]  # fmt: skip
    return "\n".join([*lines, common.table(("kernels", "calls", "us", "share of roofline", "occupancy"), kinds), ""])


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.0%}"


def main() -> int:
    """Measure or predict, print, append the rows."""
    parser = common.parser(__doc__, "gpu_speed.jsonl")
    parser.add_argument("--only", default="*", metavar="GLOB", help="networks such as 'tv/*'")
    parser.add_argument("--target", help="measure on a device of this target (default: CUDA's, if one is here)")
    parser.add_argument("--predict", action="store_true", help="predict, though there may be a device")
    parser.add_argument("--side", type=int, default=SIDE, help=f"images of SIDE x SIDE (default {SIDE})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns to time (default {ROUNDS})")
    arguments = parser.parse_args()
    from secateur.codegen.devices import nvcc

    target = None if arguments.predict else arguments.target or device_target()
    if target != "opencl" and not nvcc.find():
        print(f"this needs nvcc: pip install {nvcc.PACKAGES}", file=sys.stderr)
        return 2
    if target is None:
        print(NO_DEVICE, flush=True)
    here, wrong = common.circumstances(arguments.seed), 0
    for row in predictions(arguments) if target is None else measurements(arguments, target):
        common.append(arguments.output, [row | here | {"side": arguments.side}])
        print(show(row), flush=True)
        wrong += row["status"] == "wrong"
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
