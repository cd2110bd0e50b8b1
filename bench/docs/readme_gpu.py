"""What is said of kernels for GPUs: runs by PoCL, reports of Oclgrind, cubins; speeds, predicted or measured."""

from __future__ import annotations

from collections.abc import Sequence

from bench.lib import common


def gpu() -> str:
    """Do they compute what torch does, and what is known or predicted of their speed?"""
    rows = list({(r["kind"], r["case"]): r for r in common.read(common.RESULTS / "gpu.jsonl")}.values())
    if not rows:
        return ""
    of = {kind: [r for r in rows if r["kind"] == kind] for kind in ("template", "races", "network", "cubin")}
    shown = [r for found in of.values() for r in found]
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
        + f" `python -m bench.reach.gpu`; {common.where(*shown)}."
    ]
    lines += [f"- {r['kind']} {r['case']}: {r['status']}" for r in shown if r["status"] == "wrong"]
    newest = {(r["kind"], r["case"]): r for r in common.read(common.RESULTS / "gpu_speed.jsonl")}
    return "\n".join([*lines, speeds(list(newest.values()))])


def speeds(rows: Sequence[common.Row]) -> str:
    """Shares of the roofline by kind of kernel, and times next to PyTorch's where a GPU was measured."""
    found = [line for kind in ("prediction", "measurement") for line in _shares(rows, kind)]
    return "\n".join([*found, *_times([r for r in rows if r["kind"] == "measurement"])])


_WHAT = {
    "prediction": "Predicted, by counting and not measured: ",
    "measurement": "Measured, by the device's events: ",
}


def _shares(rows: Sequence[common.Row], what: str) -> list[str]:
    """A row for each network, board and batch."""
    rows = [r for r in rows if r["kind"] == what]
    if not rows:
        return []
    kinds = [*dict.fromkeys(f for r in rows for f in r["families"] if f != "all"), "all"]
    lines = [
        "",
        f"{_WHAT[what]}the share of the roofline of all kernels of a kind together, and microseconds of all kernels of "
        "a network, 224x224, in float32 where nothing else is said. A tile is an implicit matrix product, of 1x1 or "
        "wider kernels or in groups; *grouped* are narrow groups without shared memory, *sums* layers of up to eight "
        "pixels. Tensor cores are counted at half of the rate that NVIDIA states, twice that with 2:4 zeros. "
        f"`python -m bench.speed.gpu`; {common.where(*rows)}.",
        "",
        f"| network | board | batch | {' | '.join(kinds)} | µs |",
        f"|---|---|--:|{'--:|' * len(kinds)}--:|",
    ]
    for r in rows:
        shares = [_share(r["families"].get(kind)) for kind in kinds]
        time = f"{r['families']['all']['us']:,.0f}"
        lines.append(f"| {r['network']} | {r['board']} | {r['batch']} | {' | '.join([*shares, time])} |")
    return lines


def _share(found: common.Row | None) -> str:
    return "" if found is None or found["share"] is None else f"{found['share']:.0%}"


def _times(rows: Sequence[common.Row]) -> list[str]:
    """Whole runs next to PyTorch's."""
    if not rows:
        return []
    ways = list(dict.fromkeys(way for r in rows for way in r["us"] if way != "secateur"))
    lines = [
        "",
        "Microseconds of a whole run, inputs on the device, and in brackets how many times ours.",
        "",
        f"| network | board | batch | secateur |{''.join(f' {way} |' for way in ways)}",
        f"|---|---|--:|--:|{'--:|' * len(ways)}",
    ]
    for r in rows:
        theirs = [f"{r['us'][w]['median']:,.0f} ({r['ratios'][w]['median']:.2f})" if w in r["us"] else "" for w in ways]
        ours = f"{r['us']['secateur']['median']:,.0f}"
        lines.append(f"| {r['network']} | {r['board']} | {r['batch']} | {' | '.join([ours, *theirs])} |")
    return lines
