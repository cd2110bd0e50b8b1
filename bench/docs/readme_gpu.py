"""What can be said of kernels for GPUs without a GPU: runs by PoCL, reports of Oclgrind, cubins, and predictions."""

from __future__ import annotations

from bench.lib import common

FAMILIES = ("conv", "block_sparse", "tf32", "f16", "window", "elementwise", "copies", "all")


def gpu() -> str:
    """Do they compute what torch does, and what is predicted of their speed?"""
    rows = list({(r["kind"], r["case"]): r for r in common.read(common.RESULTS / "gpu.jsonl")}.values())
    if not rows:
        return ""
    kinds = ("template", "races", "network", "cubin", "prediction")
    of = {kind: [r for r in rows if r["kind"] == kind] for kind in kinds}
    right = {kind: f"{sum(r['status'] == 'right' for r in found)} of {len(found)}" for kind, found in of.items()}
    worst = max((r["error"] for r in [*of["template"], *of["network"]]), default=0.0)
    lines = [
        f"**GPUs, without one**: OpenCL kernels run on a processor by PoCL compute what the torch executor computes in "
        f"{right['template']} cases of templates and {right['network']} whole networks "
        f"({', '.join(r['case'] for r in of['network'])}), to {worst:.0e} of the largest output at most. Oclgrind has "
        f"nothing to report (races, places out of bounds, barriers) in {right['races']} cases. "
        + " ".join(
            f"nvcc's cubin for {r['case']}: {r['kernels']} kernels, at most {r['registers']} registers and "
            f"{r['shared_bytes'] / 1024:.0f} KiB of shared memory, {r['spilled_bytes']} bytes spilled."
            for r in of["cubin"]
        )
        + f" `python -m bench.reach.gpu`; {common.where(*rows)}."
    ]
    lines += [f"- {r['kind']} {r['case']}: {r['status']}" for r in rows if r["status"] == "wrong"]
    return "\n".join([*lines, *_table(of["prediction"])])


def _table(rows: list[common.Row]) -> list[str]:
    """Shares of the roofline, a row for each network, board and batch."""
    if not rows:
        return []
    lines = [
        "",
        "Predicted, by counting and not measured: the share of the roofline of a family's kernels together, and "
        "microseconds of all kernels of a network, 224x224, without launches but those of a call's second kernel; in "
        "float32 where nothing else is said. Tensor cores are counted at half of the rate that NVIDIA states.",
        "",
        f"| network | board | batch | {' | '.join(FAMILIES)} | µs |",
        f"|---|---|--:|{'--:|' * len(FAMILIES)}--:|",
    ]
    for r in rows:
        shares = [f"{r['families'][f]['share']:.0%}" if f in r["families"] else "" for f in FAMILIES]
        time = r["families"]["all"]["predicted_us"]
        lines.append(f"| {r['network']} | {r['board']} | {r['batch']} | {' | '.join(shares)} | {time:,.0f} |")
    return lines
