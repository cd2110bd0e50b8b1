"""What is known of bfloat16 without a processor that has it: predictions, emulated runs, and how far answers move."""

from __future__ import annotations

from bench.docs.readme_headlines import newest
from bench.lib import common


def bf16() -> str:
    """Predicted shares of the peak by layer and model, then what was run."""
    rows = common.read(common.RESULTS / "bf16_loops.jsonl")
    if not rows:
        return ""
    known = {(r["layer"], r["model"]): r for r in rows}
    models = list(dict.fromkeys(model for _, model in known))
    first = known[next(iter(known))]
    lines = [
        f"**Predicted by {first['mca']}, not measured**: of the peak of bfloat16, what the loop that multiplies "
        "reaches and, with the rounding of inputs and what is padded, the whole kernel, if the caches hold all; then "
        "its multiply-accumulates a cycle over those of the direct kernel's in float32. "
        f"{max(r['spills'] for r in known.values())} of these loops' accesses are to the stack.",
        "",
        "| layer | " + " | ".join(f"{model}: loop | kernel | times f32" for model in models) + " |",
        "|---|" + "--:|--:|--:|" * len(models),
    ]
    for layer in dict.fromkeys(layer for layer, _ in known):
        cells = [known[layer, model] for model in models if (layer, model) in known]
        shown = " | ".join(f"{r['share']:.0%} | {r['kernel_share']:.0%} | {r['gain']:.2f}" for r in cells)
        lines.append(f"| {layer} | {shown} |")
    lines += ["", f"`python -m bench.reach.bf16_loops`; {common.where(*known.values())}."]
    return "\n".join([*lines, *emulated(), *answers()])


def emulated() -> list[str]:
    """Arm's instructions under qemu."""
    rows = list(newest("bf16_emulated", "case").values())
    layers = [r for r in rows if "distance" not in r]
    if not layers:
        return []
    whole = "".join(
        f" {r['case']} is {r['error']:.0e} from the same kernels in plain arithmetic, and {r['distance']:.0e} from "
        "float32 (drawn weights)." for r in rows if "distance" in r
    )  # fmt: skip
    return [
        "",
        f"**Run under emulation**: {len(layers)} layers for {layers[0]['target']}, by `bfmmla` itself, are at most "
        f"{max(r['error'] for r in layers):.0e} of their largest output from double precision on rounded numbers."
        f"{whole} `python -m bench.reach.bf16_emulated`; {common.where(*rows)}.",
    ]


def answers() -> list[str]:
    """Trained networks on photos."""
    rows = list(newest("bf16_accuracy", "subject").values())
    if not rows:
        return []
    lines = [
        "",
        "**Answers of trained networks on photos in bfloat16**: the largest difference from float32 over the largest "
        "score, and photos with the same answer; next to torch's autocast.",
        "",
        "| network | photos | error | torch's | same answers | torch's |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for r in rows:
        ours, other = r["ours"], r["torch"]
        lines.append(
            f"| {r['subject']} | {r['pictures']} | {ours['error']:.1e} | {other['error']:.1e} | "
            f"{ours['agreement']:.0%} | {other['agreement']:.0%} |"
        )
    return [*lines, "", f"`python -m bench.accuracy.bf16`; {common.where(*rows)}."]
