"""What is measured of code for ARM without a board: emulated runs, inner loops, instruction counts."""

from __future__ import annotations

from bench.docs.readme_headlines import newest
from bench.lib import common


def emulated() -> str:
    """Do libraries for arm64 compute what torch does?"""
    rows = list(newest("emulated", "case").values())
    if not rows:
        return ""
    kinds = {kind: [r for r in rows if r["kind"] == kind] for kind in ("template", "network")}
    right = {kind: sum(r["status"] == "right" for r in of) for kind, of in kinds.items()}
    worst = max((r["error"] for r in rows if "error" in r), default=0.0)
    names = ", ".join(r["case"] for r in kinds["network"])
    text = (
        f"**ARM, emulated**: libraries for {rows[0]['target']}, built on x86-64 and run for real by qemu's user mode. "
        f"{right['template']} of {len(kinds['template'])} cases of templates and {right['network']} of "
        f"{len(kinds['network'])} whole networks ({names}) compute what the torch executor computes, to "
        f"{worst:.0e} of the largest output at most. "
    )
    built = [r for r in rows if r["kind"] == "build"]
    text += "".join(
        f"From MobileNetV2's ONNX file to a library for {r['target']}: {r['build_s']:.0f} s, {r['cpu_s']:.0f} s of CPU "
        f"time (the machine's load was {r['load']:.1f}). " for r in built
    )  # fmt: skip
    wrong = [f"- {r['case']}: {r['status']}" for r in rows if r["status"] != "right"]
    return "\n".join([f"{text}`python -m bench.reach.emulated`; {common.where(*rows)}.", *wrong])


def instructions() -> str:
    """Instructions an image, next to other runtimes."""
    rows = [r for r in newest("instructions").values() if "litert" in r]
    if not rows:
        return ""
    lines = [
        f"**Instructions of one image** (224x224, one thread) on {rows[0]['target']}, in millions, counted by qemu.",
        "",
        "| network | secateur | ONNX Runtime | LiteRT (XNNPACK) | of ONNX Runtime's | of LiteRT's |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for r in rows:
        counts = " | ".join(f"{r[name] / 1e6:,.0f}" for name in ("ours", "onnxruntime", "litert"))
        lines.append(f"| {r['network']} | {counts} | {r['over_onnxruntime']:.2f} | {r['over_litert']:.2f} |")
    versions = f"ONNX Runtime {rows[0]['versions']['onnxruntime']}, {rows[0]['litert_version'].replace('==', ' ')}"
    return "\n".join([*lines, "", f"`python -m bench.reach.instructions`; {common.where(*rows)}, {versions}."])


def inner_loops() -> str:
    """Shares of the multipliers' peak, by llvm-mca."""
    rows = list(newest("inner_loops", "layer").values())
    if not rows:
        return ""
    lines = [
        f"**Inner loops** for {rows[0]['target']}, by {rows[0]['mca']} with everything in the first cache: fused "
        "multiply-adds of vectors over what the multipliers begin in as many cycles. A depthwise output of nine "
        "products cannot pass 90 %: its store takes a tenth slot.",
        "",
        "| layer | kernel | products | instructions | cycles | of the peak |",
        "|---|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r['layer']} | {r['kernel'].split()[0]} | {r['products']} | {r['instructions']} | {r['cycles']:.1f} | "
        f"{r['share']:.1%} |"
        for r in rows
    ]
    return "\n".join([*lines, "", f"`python -m bench.reach.inner_loops`; {common.where(*rows)}."])
