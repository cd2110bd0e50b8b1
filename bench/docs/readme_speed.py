"""The README's parts on speed, from the committed results and nothing else; `readme.py` puts them in their place."""

from __future__ import annotations

import statistics
import textwrap

from bench.lib import common
from bench.reach.names import ENGINES, WRONG

COLUMNS = {
    "secateur": "secateur", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch.compile": "torch.compile",
    "tvm-default": "TVM",
}  # fmt: skip
# MetaSchedule has a line of its own.
NAMES = {
    **ENGINES, **COLUMNS, "tvm-metaschedule": "MetaSchedule", "openvino-default": "OpenVINO (default)",
    "executorch": "ExecuTorch",
}  # fmt: skip


def latency() -> str:
    """Our libraries next to the runtimes that people use, and the pruned networks next to their dense selves."""
    rows = speeds()
    if not rows:
        return ""
    first = rows[0]
    return "\n".join([
        "**Speed**: milliseconds at 224x224, batch 1, f32. Each runtime ran in a process of its own, by turns with the",
        "others, and stopped while they ran. *best/ours* is the fastest peer's time over ours, the median of the",
        "rounds; *memory* is the peak of a process that loads and runs the network, over ONNX Runtime's; *cores* how",
        "much of one core alone each gave when all worked (bench/lib/cores.py: 1 is all that the machine promises).",
        _tuned(rows),
        "",
        "![Peers' times over ours](latency.svg)",
        *(line for threads in sorted({r["threads"] for r in rows}) for line in _speed_table(rows, threads)),
        "",
        *_wrong_ones(rows),
        *_peak_shares(rows),
        "",
        *_searched(),
        "",
        f"`python -m bench.speed.latency`; {common.where(*rows)}, "
        f"ONNX Runtime {first['versions']['onnxruntime']}, OpenVINO "
        f"{(first['versions'] | first.get('packages', {})).get('openvino', '-')}, TVM "
        f"{first['versions'].get('apache-tvm', '-')}.",
        *_elsewhere(),
    ])  # fmt: skip


def several() -> str:
    """Several pictures a run."""
    rows = list({(r["network"], r["batch"], r["threads"]): r
                 for r in common.read(common.RESULTS / "latency_batch.jsonl")}.values())  # fmt: skip
    if not rows:
        return ""
    lines = [
        "**Several pictures a run**, milliseconds of all of them in f32, by turns as above; *share* is the least of a",
        "core that the machine gave, before or after, which was busy with other work where it is far below 1.",
        "",
        "| network | pictures | threads | secateur | best peer | best/ours | share |",
        "|---|--:|--:|--:|---|--:|--:|",
    ]
    for r in sorted(rows, key=lambda r: (r["network"], r["batch"], r["threads"])):
        ms = {name: spread["median"] for name, spread in r["ms"].items()}
        lines.append(
            f"| {r['network']} | {r['batch']} | {r['threads']} | {ms['secateur']:.1f} | "
            f"{r['best_peer']} {ms[r['best_peer']]:.1f} | {r['best_peer_ratio']:.2f} | {min(r['cores']):.2f} |"
        )
    return "\n".join([*lines, "", f"`python -m bench.speed.latency --batch N`; {common.where(*rows)}."])


def speeds() -> list[common.Row]:
    """The newest row of each network and number of threads on the machine that was measured last, in one order."""
    rows = _rows()
    return _newest(rows, rows[-1]["machine"]["cpu"]) if rows else []


def _rows() -> list[common.Row]:
    return [r for r in common.read(common.RESULTS / "latency.jsonl") if "ms" in r]


def _newest(rows: list[common.Row], cpu: str) -> list[common.Row]:
    """Of one machine; networks stand in the order in which they were first measured on any."""
    order = {r["network"]: None for r in rows}
    found = {(r["network"], r["threads"]): r for r in rows if r["machine"]["cpu"] == cpu}
    return sorted(found.values(), key=lambda r: (list(order).index(r["network"]), r["threads"]))


def _elsewhere() -> list[str]:
    """What was measured on other machines, in brief."""
    rows = _rows()
    lines = []
    for cpu in dict.fromkeys(r["machine"]["cpu"] for r in reversed(rows[:-1]) if r["machine"] != rows[-1]["machine"]):
        newest = _newest(rows, cpu)
        found = {(r["network"], r["threads"]): r for r in newest}
        threads = sorted({n for _, n in found})
        many = [several_threads(n) for n in threads]
        lines += [
            "", f"The same on another machine, with the code of then ({common.where(*newest)}):", "",
            f"| best/ours, of its dense time | {' | '.join(f'{t} | of dense' for t in many)} |",
            f"|---|{'--:|' * (2 * len(many))}",
        ]  # fmt: skip
        for network in dict.fromkeys(r["network"] for r in newest):
            cells = []
            for n in threads:
                r = found.get((network, n), {"best_peer_ratio": None, "of_dense": None})
                cells.append(f"{r['best_peer_ratio']:.2f}" if r["best_peer_ratio"] else "")
                cells.append(f"{r['of_dense']:.0%}" if r["of_dense"] else "")
            lines.append(f"| {short(network)} | {' | '.join(cells)} |")
    return lines


def _searched() -> list[str]:
    """What MetaSchedule's search brings, over all networks that were ever searched: it takes ten minutes for each."""
    rows = [r for r in common.read(common.RESULTS / "latency.jsonl") if "tvm-metaschedule" in r.get("ratio", {})]
    newest = {(r["network"], r["threads"]): r["ratio"]["tvm-metaschedule"] for r in rows}
    told = []
    for threads in sorted({threads for _, threads in newest}):
        found = [ratio for (_, n), ratio in newest.items() if n == threads]
        many = f"{threads} threads" if threads > 1 else "one thread"
        told.append(f"{min(found):.1f} to {max(found):.1f} times ours on {many} ({len(found)} networks)")
    return textwrap.wrap(
        "What TVM's own MetaSchedule finds, given at least ten times our tuning time "
        "(`bench/speed/metaschedule.py`), takes "
        f"{', '.join(told)}: by the newest row of each network that has it.", 118,
    ) if told else []  # fmt: skip


def short(network: str) -> str:
    """A network's name for a table."""
    return str(network).partition("/")[2].replace("@", " at ")


def several_threads(threads: int) -> str:
    """1 thread, 2 threads."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _tuned(rows: list[common.Row]) -> str:
    if {(r["tune"], r["records"]) for r in rows} == {(None, None)}:
        shipped = {r.get("shipped", 0) for r in rows}
        if shipped == {0}:
            return "Nothing was tuned for these networks: secateur's libraries took its own choices."
        return f"Nothing was tuned in this run: secateur comes with {max(shipped)} records of tuned kernels."
    return "secateur's libraries were tuned for these networks."


def _speed_table(rows: list[common.Row], threads: int) -> list[str]:
    of = [r for r in rows if r["threads"] == threads]
    columns = {k: title for k, title in COLUMNS.items() if any(k in r["ms"] for r in of)}
    lines = [
        "",
        f"| {several_threads(threads)} | {' | '.join(columns.values())} | best/ours | "
        "of its dense time | memory |" + (" cores |" if threads > 1 else ""),
        f"|---|{'--:|' * (len(columns) + 3 + (threads > 1))}",
    ]
    for r in of:
        ms = [f"{r['ms'][k]['median']:.2f}{'†' * _wrong(r, k)}" if k in r["ms"] else "" for k in columns]
        best = f"{r['best_peer_ratio']:.2f}" if r["best_peer_ratio"] else ""
        dense = f"{r['of_dense']:.0%}" if r["of_dense"] else ""
        memory = f"{r['memory']['ratio']:.2f}" if "ratio" in r["memory"] else ""
        given = f" {min(r['cores']):.2f} |" if threads > 1 and "cores" in r else " |" if threads > 1 else ""
        lines.append(f"| {short(r['network'])} | {' | '.join(ms)} | {best} | {dense} | {memory} |{given}")
    found = {r["network"]: r["best_peer_ratio"] for r in of if r["best_peer_ratio"]}
    dense_only = [v for n, v in found.items() if "@" not in n]
    means = [f"{statistics.geometric_mean(v):.2f} over {what}"
             for v, what in ((found.values(), f"all {len(found)}"), (dense_only, f"the {len(dense_only)} unpruned"))
             if v]  # fmt: skip
    return [*lines, "", f"Geometric mean of best/ours: {', '.join(means)}." if means else ""]


def _wrong(row: common.Row, runtime: str) -> bool:
    """Did it compute something else than ONNX Runtime?"""
    return bool(row.get("error", {}).get(runtime, 0.0) > WRONG)


def _wrong_ones(rows: list[common.Row]) -> list[str]:
    found = {(r["network"], k): r["error"][k] for r in rows for k in r.get("error", {}) if _wrong(r, k)}
    told = [f"{NAMES[k]} on {short(n)} by {error:.2f} of the outputs' scale" for (n, k), error in found.items()]
    return [*textwrap.wrap(f"† is off: {'; '.join(told)}.", 118), ""] if told else []


def _peak_shares(rows: list[common.Row]) -> list[str]:
    """Each layer class's share of the FMA peak: the median over the networks, and from where to where."""
    shares: dict[str, list[float]] = {}
    for r in rows:
        for name, found in r["classes"].items():
            if name != "peak" and found["ms"] > 0:
                shares.setdefault(name, []).append(found["share"])
    told = [
        f"{name} {statistics.median(of):.0%} ({min(of):.0%} to {max(of):.0%} in {len(of)} networks)"
        for name, of in sorted(shares.items(), key=lambda item: -statistics.median(item[1]))
        if len(of) > 1
    ]
    return textwrap.wrap(
        "Share of the peak of fused multiply-adds that the kernels of a class of layers reach by themselves on one "
        f"thread, padding not counted as work: {'; '.join(told)}.", 118,
    ) if told else []  # fmt: skip


def tuning() -> str:
    """What tuning costs, and what ten times of it brings."""
    rows = {r["network"]: r for r in common.read(common.RESULTS / "tuning.jsonl") if "kernels" in r}
    if not rows:
        return ""
    lines = ["**Tuning** on one thread, every command as a user types it:", ""]
    for r in rows.values():
        if "after" in r:
            lines.append(
                f"- {short(r['network'])} with {short(r['after'])}'s records measures {r['measured']} of its "
                f"{r['kernels']} kernels in {r['tune_s']:.0f} s, {r['alone_tune_s']:.0f} s from nothing."
            )
            continue
        lines.append(
            f"- {short(r['network'])} from nothing: {r['kernels']} kernels in {r['tune_s']:.0f} s, then built in "
            f"{r['build_s']:.1f} s. It runs in {r['ms']['once']['median']:.2f} ms; {r['times']} times the measuring "
            f"makes that {r['ratio']['tenfold']:.1%}, and no tuning at all {r['ratio']['no file']:.1%}."
        )
    return "\n".join([*lines, "", f"`python -m bench.speed.tuning`; {common.where(*rows.values())}."])


def pays() -> str:
    """Does pruning make networks faster in every runtime?"""
    path = common.RESULTS / "pays.jsonl"
    rows = common.read(path) if path.exists() else []
    if not rows:
        return ""
    runtimes = list(dict.fromkeys(r["runtime"] for r in rows))
    names = {"secateur": "secateur", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "torch"}
    slower = sum(r["of_whole"] > 1 for r in rows)
    lines = [
        "**Pruning pays**: time of a pruned network over that of the whole one in the same runtime, one thread, widths",
        f"by `round_to=auto`, uniform / global allocation. Slower than the whole network: {slower} of {len(rows)};",
        f"the least gain is {max(r['of_whole'] for r in rows):.2f}.",
        "",
        f"| network | MACs | {' | '.join(names[r] for r in runtimes)} |",
        f"|---|--:|{'--:|' * len(runtimes)}",
    ]
    for network in dict.fromkeys(r["network"] for r in rows):
        for share in sorted({r["macs"] for r in rows}):
            found = {(r["runtime"], r["method"]): r for r in rows if r["network"] == network and r["macs"] == share}
            cells = [
                " / ".join(f"{found[t, m]['of_whole']:.2f}" for m in ("uniform", "global") if (t, m) in found)
                for t in runtimes
            ]
            lines.append(f"| {short(network)} | {share:.0%} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`python -m bench.speed.pays`; {common.where(*rows)}."])


def libraries() -> str:
    """Do libraries of one network of each family compute what the networks compute?"""
    path = common.RESULTS / "libraries.jsonl"
    rows = list({r["network"]: r for r in common.read(path)}.values()) if path.exists() else []
    if not rows:
        return ""
    right = [r for r in rows if r["status"] == "right"]
    ratios = [r["ratio"] for r in right if "ratio" in r]
    worst = max(r["error"] for r in right)
    return "\n".join(textwrap.wrap(
        f"**Libraries of {len(rows)} networks**, one of each family of the zoo, real files and reference networks, "
        f"built without tuning: {len(right)} compute what the torch executor computes (largest error {worst:.0e} of "
        "the output's scale; beyond 1e-4 it must be within twice torch's own distance from double precision), in "
        f"{statistics.geometric_mean(1 / r for r in ratios):.2f} of ONNX Runtime's time in the "
        f"geometric mean, one thread. `python -m bench.speed.libraries`; {common.where(*rows)}.", 118,
    ))  # fmt: skip
