"""Tables of other people's programs: engines that run what is written, and pruners on the same networks."""

from __future__ import annotations

import re
import statistics

from bench.docs.readme_speed import NAMES, several_threads, short
from bench.lib import common
from bench.reach.names import ENGINES, PRUNERS, WRONG
from secateur.checks.library import FINE


def portable() -> str:
    """Pruned ShuffleNets in every engine."""
    rows = common.read(common.RESULTS / "portable.jsonl")
    found = {(r["network"], r["macs"], r["engine"]): r for r in rows}
    if not found:
        return ""
    lines = [
        "**What is written, elsewhere**: ShuffleNets as they are and at half of their multiply-accumulates, written by "
        "`secateur compile`, in each engine. The largest difference from ONNX Runtime on the original with its missing "
        "columns at zero, over the largest value.",
        "",
        f"| network | MACs | {' | '.join(ENGINES.values())} |",
        f"|---|---|{'--:|' * len(ENGINES)}",
    ]
    for name, macs in sorted({(r["network"], r["macs"]) for r in rows}, key=lambda k: (k[0], k[1] != "given")):
        cells = [_error(found.get((name, macs, engine))) for engine in ENGINES]
        lines.append(f"| {name} | {'all' if macs == 'given' else macs} | {' | '.join(cells)} |")
    packages = {package: v for r in rows for package, v in r.get("packages", {}).items() if package != "numpy"}
    named = ", ".join(f"{package} {version}" for package, version in packages.items())
    return "\n".join([*lines, "", f"`python -m bench.reach.portable`; {named}; {common.where(rows[-1])}."])


def compared() -> dict[tuple[str, int], common.Row]:
    """The newest row of each network and number of threads next to every engine."""
    return {(r["network"], r["threads"]): r for r in common.read(common.RESULTS / "latency_engines.jsonl")}


def installed() -> str:
    """Our libraries next to every engine as users install it."""
    rows = list(compared().values())
    if not rows:
        return ""
    runtimes = [k for k in NAMES if k != "secateur" and any(k in r["ms"] for r in rows)]
    lines = [
        "**Every engine as users install it**, each in an environment of its own (`python -m bench.lib.engines`), by "
        "turns in one run: its time over ours by the wall's clock / by the processor's. *best/ours* is the fastest of "
        f"those within {WRONG:g} of ONNX Runtime's outputs; † is not, and *OpenVINO (default)* may round to bfloat16.",
    ]
    for threads in sorted({r["threads"] for r in rows}):
        lines += [
            "", f"| {several_threads(threads)} | ours, ms | {' | '.join(NAMES[k] for k in runtimes)} | best/ours |",
            f"|---|--:|{'--:|' * (len(runtimes) + 1)}",
        ]  # fmt: skip
        of = [r for r in rows if r["threads"] == threads]
        for r in of:
            cells = [
                f"{r['ratio'][k]:.2f} / {r['cpu_ratio'][k]:.2f}{'†' * (r['error'].get(k, 0.0) > WRONG)}"
                if k in r["ratio"] else "" for k in runtimes
            ]  # fmt: skip
            best = (
                f"{r['best_peer_ratio']:.2f} / {r['best_cpu_ratio']:.2f}" if r["best_peer_ratio"] else "none is right"
            )
            lines.append(
                f"| {short(r['network'])} | {r['ms']['secateur']['median']:.2f} | {' | '.join(cells)} | {best} |"
            )
        judged = [r for r in of if r["best_peer_ratio"]]
        if judged:
            means = [statistics.geometric_mean(r[k] for r in judged) for k in ("best_peer_ratio", "best_cpu_ratio")]
            lines += ["", f"Geometric mean of best/ours: {means[0]:.2f} by the wall, {means[1]:.2f} by the processor."]
            lines += [exact for r in judged if (exact := _exact(r))]
    failed = {
        f"{NAMES.get(k, k)} failed on {short(r['network'])}: {_short(v)}" for r in rows for k, v in r["failed"].items()
    }
    packages = {package: v for r in rows for package, v in r["packages"].items()}
    named = ", ".join(f"{package} {version}" for package, version in packages.items())
    right = max(e for r in rows for k, e in r["error"].items() if e <= WRONG and k != "openvino-default")
    return "\n".join([
        *lines, "", *(f"- {reason}" for reason in sorted(failed)), *([""] if failed else []),
        f"Outputs are at most {right:.0e} of their scale from ONNX Runtime's, where no † stands. "
        f"`python -m bench.speed.latency --runtimes installed`; {named}; {common.where(*rows)}.",
    ])  # fmt: skip


def _exact(row: common.Row) -> str:
    """Who is the fastest of those that are as exact as our libraries have to be, where the best engine is not."""
    error: dict[str, float] = row["error"]
    if error.get(row["best_peer"], 0.0) <= FINE:
        return ""
    over = {k: v for k, v in row["ratio"].items() if error.get(k, 0.0) <= FINE and k != "openvino-default"}
    of = f"{NAMES[row['best_peer']]}'s outputs of {short(row['network'])} are {error[row['best_peer']]:.0e} off"
    if not over:
        return f"{of}; no other engine is within {FINE:g}, as our libraries have to be."
    nearest = min(over, key=over.__getitem__)
    return (
        f"{of}; of engines within {FINE:g}, as our libraries have to be, the best is {NAMES[nearest]}, "
        f"{over[nearest]:.2f} by the wall."
    )


def start() -> str:
    """From the start of a process to its first answer."""
    rows = list({r["network"]: r for r in common.read(common.RESULTS / "start.jsonl")}.values())
    if not rows:
        return ""
    lines = [
        "**From the start of a process to its first answer**, milliseconds in the median on one thread: Python with "
        "NumPy and the runtime's package, loading the network, the first run; *all* is their sum, *again* a run after "
        "it, *peak* the process's memory. Files are in the system's cache.",
        "",
        "| network | runtime | file | Python | import | load | first run | all | all/ours | again | peak |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in rows:
        for runtime, steps in r["ms"].items():
            ms = [f"{steps[s]['median']:.0f}" for s in ("python", "import", "load", "first", "answer")]
            over = f"{r['ratio'][runtime]:.2f}" if runtime in r["ratio"] else ""
            size = r["bytes"]["secateur" if runtime == "secateur" else "onnx"]
            lines.append(
                f"| {short(r['network'])} | {NAMES[runtime]} | {size / 1e6:.1f} MB | {' | '.join(ms)} | {over} | "
                f"{steps['again']['median']:.1f} | {r['peak'][runtime] / 1e6:.0f} MB |"
            )
    return "\n".join([*lines, "", f"`python -m bench.speed.start`; {common.where(*rows)}."])


def _error(row: common.Row | None) -> str:
    if row is None:
        return ""
    error = row.get("max_rel_err")
    return f"{error:.0e}" if isinstance(error, float) else str(error or row["status"])


def _short(reason: str) -> str:
    """The first of several sentences that another program gives, without addresses in its memory."""
    return re.sub(r"<?(function \w+) at 0x[0-9a-f]+>?", r"\1", reason).split(";")[0]


def pruners() -> str:
    """Other pruners of torch modules on the same networks."""
    rows = {(r["network"], r["pruner"]): r for r in common.read(common.RESULTS / "pruners.jsonl")}
    if not rows:
        return ""
    last = next(reversed(rows.values()))
    versions = {r["pruner"]: r["version"] for r in rows.values() if r["version"]}
    lines = [
        "**Other pruners**, half of the channels of every layer but the classifier, each network in a process of its "
        "own: whether the law holds, and processor seconds from the module to the smaller one. *Not finished*: stopped "
        "after 60 s. *Pruned*: it runs and is smaller, and weights alone do not say whether the law holds. *Told*: "
        "torch-kirigami's own search for what may go takes longer than that, so it is also asked to remove the later "
        "half of each layer's rows, once, whatever their sizes; what it refuses then may go in another request.",
        "",
        f"| network | {' | '.join(f'{PRUNERS[p]} {versions.get(p, chr(32))}'.strip() for p in PRUNERS)} |",
        f"|---|{'---|' * len(PRUNERS)}",
    ]
    reasons = []
    for name in dict.fromkeys(network for network, _ in rows):
        cells = []
        for pruner in PRUNERS:
            row = rows.get((name, pruner))
            cells.append(
                "" if row is None else f"{row['status']}, {row['cpu_s']:.2f} s" if "cpu_s" in row else row["status"]
            )
            if row is not None and row.get("reason") and row["status"] != "not finished":
                reasons.append(f"{name}, {PRUNERS[pruner]}: {_short(row['reason'])}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *(f"- {reason}" for reason in reasons)]
    return "\n".join([*lines, "", f"`python -m bench.reach.pruners --limit 60`; {common.where(last, *rows.values())}."])
