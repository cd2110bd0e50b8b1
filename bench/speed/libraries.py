"""Which networks become libraries, do they compute what the networks compute, and how fast next to ONNX Runtime?

    python -m bench.speed.libraries [--only GLOB] [--resume] [--seconds 80]

One network of each family of the coverage zoo, the real files and the reference networks are built for this machine
without tuning, and run on one random input next to the torch executor. Right means within 1e-4 of the output's largest
value; or, where float32 itself is coarser (some networks with drawn weights magnify rounding), within twice torch's own
distance from double precision. Then the library and ONNX Runtime take turns on one thread. What a library has no
template for goes through TVM's own kernels; which operators those are stands in the row.
"""

from __future__ import annotations

import fnmatch
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.lib import common

TOLERANCE = 1e-4
ROUNDS = 25
PATIENCE = 4.0  # seconds of turns a network gets once three of them count
FAMILIES = (
    "tv/alexnet", "tv/convnext_tiny", "tv/densenet121", "tv/efficientnet_b0", "tv/efficientnet_v2_s", "tv/googlenet",
    "tv/inception_v3", "tv/mnasnet1_0", "tv/mobilenet_v2", "tv/mobilenet_v3_large", "tv/regnet_x_400mf",
    "tv/regnet_y_400mf", "tv/resnet50", "tv/resnext50_32x4d", "tv/shufflenet_v2_x1_0", "tv/squeezenet1_1", "tv/swin_t",
    "tv/vgg11", "tv/vit_b_32", "tv/wide_resnet50_2", "timm/resnetblur18", "timm/resnet50_gn", "timm/seresnet18",
    "timm/ecaresnet26t", "timm/resnetv2_18", "timm/res2net50_26w_4s", "timm/resnest14d", "timm/vovnet39a", "timm/dla34",
    "timm/hrnet_w18_small", "timm/mobilenetv4_conv_small", "timm/efficientnet_lite0", "timm/ghostnet_100",
    "timm/fbnetc_100", "timm/mixnet_s", "timm/tinynet_e", "timm/repvgg_a0", "timm/mobileone_s0", "timm/repvit_m0_9",
    "timm/rexnet_100", "timm/dpn68", "timm/inception_v4", "timm/xception41", "timm/cspresnet50", "timm/darknet17",
    "timm/cs3darknet_s", "timm/selecsls42", "timm/skresnet18", "timm/gernet_s", "timm/convmixer_768_32",
    "timm/nfnet_l0", "timm/starnet_s1", "timm/hgnetv2_b0", "timm/lcnet_050", "timm/fastvit_t8", "timm/tresnet_m",
    "timm/fasternet_t0", "timm/poolformer_s12", "seg/lraspp_mobilenet_v3_large", "det/fpn_resnet18",
)  # fmt: skip
# Files from packages, and the input each is built for.
REAL: dict[str, tuple[int, ...]] = {
    "real/open-nsfw": (1, 224, 224, 3), "real/centerface": (1, 3, 480, 640), "real/ppocr_det": (1, 3, 320, 320),
    "real/ppocr_rec": (1, 3, 48, 320), "real/ppocr_cls": (1, 3, 48, 192),
}  # fmt: skip
REFERENCES = (
    "ref/resnet50", "ref/resnext50_32x4d", "ref/se_resnet50", "ref/mobilenet_v1", "ref/shufflenet_v1_g3",
    "ref/shufflenet_v1_g8",
)  # fmt: skip


def subject(name: str, seed: int) -> tuple[Any, Any, bytes]:
    """A network's graph, an input, and its ONNX file. Raises secateur's errors."""
    import torch

    from bench.data import zoo
    from secateur.ir.exporters.onnx.write import to_onnx
    from secateur.ir.frontends.torch.trace import trace

    collection, _, model = name.partition("/")
    if collection == "real":
        return _real(model, REAL[name], seed)
    if collection == "ref":
        from bench.nets import networks

        found = networks.capture(name, seed)
        graph, x = found.graph, found.x
    else:
        example = zoo.example(collection, model, seed)
        graph, x = trace(zoo.build(collection, model, seed), (example,), dynamic_batch=False), example.numpy()
    torch.set_num_threads(1)
    return graph, x, to_onnx(graph).SerializeToString()


def _real(file: str, shape: tuple[int, ...], seed: int) -> tuple[Any, Any, bytes]:
    import onnx

    from bench.data import material
    from secateur.ir.frontends.onnx.load import load

    model = onnx.load(material.path(f"{file}.onnx"))
    initialised = {i.name for i in model.graph.initializer}
    entry = next(i for i in model.graph.input if i.name not in initialised)
    for dim, size in zip(entry.type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return load(model), np.random.default_rng(seed).normal(size=shape).astype(np.float32), model.SerializeToString()


def measure(name: str, seed: int, rounds: int) -> common.Row:
    """Build one network, compare and time it: its row."""
    from secateur.deploy import build
    from secateur.ir import Error
    from secateur.ir.exporters.torch.module import evaluate

    row: common.Row = {"network": name}
    try:
        graph, x, data = subject(name, seed)
        feed = {graph.inputs[0].name: x}
        start = time.perf_counter()
        library = build(graph)  # as users do: where Winograd costs too much, it is built again without
        left = [note.split()[2] for note in library.metadata.notes if note.startswith("no template: ")]
        row |= {"build_s": round(time.perf_counter() - start, 2), "plain": len(left), "left": dict(Counter(left))}
        found: Any = library(x)
        outputs = found if isinstance(found, tuple) else (found,)
        plain = evaluate(graph, feed)
        row["error"] = limit = distance(outputs, plain)
        if limit > TOLERANCE:
            wide = {n: w.astype(np.float64) if w.dtype == np.float32 else w for n, w in graph.weights.items()}
            exact = evaluate(graph.rewrite(weights=wide), {n: a.astype(np.float64) for n, a in feed.items()})
            row |= {"error": distance(outputs, exact), "torch_error": distance(plain, exact)}
        row |= beside(library, data, x, rounds)
    except Error as error:
        return row | {"status": "refused", "reason": str(error)[:300]}
    except Exception as error:
        return row | {"status": "broken", "reason": f"{type(error).__name__}: {error}"[:300]}
    right = row["error"] <= max(TOLERANCE, 2 * row.get("torch_error", 0.0))
    return row | {"status": "right" if right else "wrong", "reason": None}


def beside(library: Any, data: bytes, x: Any, rounds: int) -> common.Row:
    """Milliseconds of the library and of ONNX Runtime, in turns on one thread; the ratio is the median of the turns."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    ours, theirs = [], []
    begun = time.perf_counter()
    for turn in range(rounds + 3):
        if turn >= 6 and time.perf_counter() - begun > PATIENCE:
            break
        start = time.perf_counter()
        library(x)
        middle = time.perf_counter()
        session.run(None, feed)
        end = time.perf_counter()
        if turn >= 3:
            ours.append((middle - start) * 1e3)
            theirs.append((end - middle) * 1e3)
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return {"ms": statistics.median(ours), "onnxruntime_ms": statistics.median(theirs), "ratio": ratio}


def distance(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """Largest difference over the largest wanted value, over all outputs."""
    pairs = zip(found, wanted, strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs)


def rows(arguments: Any, here: common.Row) -> Iterator[common.Row]:
    """Measure what is asked for and not done yet, until the time is up."""
    done: set[str] = set()
    if arguments.resume:
        done = {r["network"] for r in common.read(arguments.output) if r["git"] == here["git"] and "ratio" in r}
    start = time.perf_counter()
    for name in (*FAMILIES, *REAL, *REFERENCES):
        if name in done or not fnmatch.fnmatch(name, arguments.only):
            continue
        if time.perf_counter() - start > arguments.seconds:
            print("the time is up; go on with --resume", file=sys.stderr)
            return
        yield measure(name, arguments.seed, arguments.rounds)


def main() -> int:
    """Measure each, print, append the rows."""
    parser = common.parser(__doc__, "libraries.jsonl")
    parser.add_argument("--only", default="*", metavar="GLOB", help="networks such as 'tv/*'")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns to time (default {ROUNDS})")
    parser.add_argument("--resume", action="store_true", help="leave out what this commit has rows for")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no further network after this time")
    arguments = parser.parse_args()
    here = common.circumstances(arguments.seed)
    wrong = 0
    for row in rows(arguments, here):
        common.append(arguments.output, [row | here])
        wrong += row["status"] != "right"
        times = "  ".join(f"{row[k]:.2f}" if k in row else "-" for k in ("ms", "onnxruntime_ms", "ratio"))
        left = " ".join(f"{op}:{n}" for op, n in sorted(row.get("left", {}).items()))
        error = f"{row['error']:.1e}" if "error" in row else "-"
        print(f"{row['network']:28} {row['status']:7} {error:8} {times}  {left} {row['reason'] or ''}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
