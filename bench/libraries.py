"""Which networks become libraries, and do the libraries compute what the networks compute?

    python bench/libraries.py [--only GLOB]

One network of each family of the coverage zoo is captured, built for this machine without tuning, and run on one random
input beside the torch executor. Right means within 1e-4 of the output's largest value; or, where float32 itself is
coarser (some networks with drawn weights magnify rounding), within twice torch's own distance from double precision.
What a library has no template for goes through TVM's own kernels; how many operators that are stands in the row.
"""

from __future__ import annotations

import fnmatch
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import common

TOLERANCE = 1e-4
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


def measure(name: str, seed: int) -> common.Row:
    """Build one network and compare: its row."""
    import zoo
    from secateur import codegen
    from secateur.ir import Error
    from secateur.ir.exporters.torch import evaluate
    from secateur.ir.frontends.torch import trace

    collection, _, model = name.partition("/")
    row: common.Row = {"network": name}
    try:
        x = zoo.example(collection, model, seed)
        graph = trace(zoo.build(collection, model, seed), (x,), dynamic_batch=False)
        feed = {graph.inputs[0].name: x.numpy()}
        start = time.perf_counter()
        library = codegen.build(graph)
        row |= {"build_s": round(time.perf_counter() - start, 2), "plain": len(library.metadata.notes)}
        found: Any = library(x.numpy())
        outputs = found if isinstance(found, tuple) else (found,)
        plain = evaluate(graph, feed)
        row["error"] = limit = distance(outputs, plain)
        if limit > TOLERANCE:
            wide = {n: w.astype(np.float64) if w.dtype == np.float32 else w for n, w in graph.weights.items()}
            exact = evaluate(graph.rewrite(weights=wide), {n: a.astype(np.float64) for n, a in feed.items()})
            row |= {"error": distance(outputs, exact), "torch_error": distance(plain, exact)}
    except Error as error:
        return row | {"status": "refused", "reason": str(error)[:300]}
    except Exception as error:
        return row | {"status": "broken", "reason": f"{type(error).__name__}: {error}"[:300]}
    right = row["error"] <= max(TOLERANCE, 2 * row.get("torch_error", 0.0))
    return row | {"status": "right" if right else "wrong", "reason": None}


def distance(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """Largest difference over the largest wanted value, over all outputs."""
    pairs = zip(found, wanted, strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs)


def main() -> int:
    """Measure each, print, append the rows."""
    parser = common.parser(__doc__, "libraries.jsonl")
    parser.add_argument("--only", default="*", metavar="GLOB", help="networks such as 'tv/*'")
    arguments = parser.parse_args()
    here = common.circumstances(arguments.seed)
    rows = []
    for name in FAMILIES:
        if fnmatch.fnmatch(name, arguments.only):
            row = measure(name, arguments.seed)
            common.append(arguments.output, [row | here])
            rows.append(row)
            shown = [
                row["network"],
                row["status"],
                row.get("build_s"),
                row.get("plain"),
                row.get("error"),
                row["reason"],
            ]
            print("  ".join(f"{v:.2g}" if isinstance(v, float) else str(v) for v in shown), flush=True)
    right = sum(r["status"] == "right" for r in rows)
    print(f"{right} of {len(rows)} families right")
    return int(right != len(rows))


if __name__ == "__main__":
    sys.exit(main())
