"""What ``accuracy.retained``, ``voices``, ``sparsity`` and ``speed.sparse`` found, as tables of docs/results.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.accuracy.lottery_tables import rows, spread
from bench.lib import common

PATTERNS = ("BMWM", "DARB", "balanced 8x1", "4x4")
COLUMNS = "9999x1"  # a block of all outputs: a column of the lowered convolution
NAMES = {"irregular": "irregular", "auto": "8x1, balanced", "darb": "DARB", "bmwm": "BMWM", "4x4": "4x4"}


def retained() -> str:
    """What patterns lose of the magnitude that irregular pruning keeps, next to the deck."""
    found = rows("retained", ("weight", "one_of"))
    if not found:
        return ""
    sample = found[0]
    sizes = sorted({r["one_of"] for r in found})
    lines = [
        "**What patterns keep**: the loss of mean magnitude against irregular pruning that keeps as many, in per cent,",
        "mean over the LSTM weights of two silero-vad files, of Resemblyzer, and of a layer that reads pictures row by",
        "row and was trained here (`bench/accuracy/retained.py`); the deck (DARB, table 2) has "
        f"{100 * sample['deck']['DARB']:.1f}",
        f"for DARB and {100 * sample['deck']['4x4']:.1f} for 4x4 blocks. *Exponential*: BMWM on exponential",
        "magnitudes, and what the formula says.",
        "",
        f"| weights | of | one of | {' | '.join(PATTERNS)} | exponential | formula |",
        f"|---|--:|--:|{'--:|' * (len(PATTERNS) + 2)}",
    ]
    for name, begins in {"silero-vad": "silero", "Resemblyzer": "Resemblyzer", "trained here": "trained"}.items():
        trained = [r for r in found if r["weight"].startswith(begins)]
        for size in sizes if trained else ():
            mine = [r for r in trained if r["one_of"] == size]
            random = next(r for r in found if r["weight"] == "exponential" and r["one_of"] == size)
            cells = [f"{100 * statistics.mean(r[p] for r in mine):.1f}" for p in PATTERNS]
            cells += [f"{100 * random['BMWM']:.1f}", f"{100 * random['formula']:.1f}"]
            lines.append(f"| {name} | {len(mine)} | {size} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`python -m bench.accuracy.retained`; {common.where(*found)}."])


def patterns() -> str:
    """Top-1 by pattern and share of zeros."""
    found = rows("sparsity", ("seed", "block", "sparsity", "by"))
    dense = [r["top1"] for r in found if r["block"] == "dense"]
    if not dense:
        return ""
    sample, seeds = found[0], len({r["seed"] for r in found})
    shares = sorted({r["sparsity"] for r in found if r["block"] != "dense"})
    lines = [
        "**Zeros without training, and after one masked pass**: a small residual network on Fashion-MNIST at 14x14,",
        f"{sample['passes']} passes over {sample['examples']:,} pictures; top-1 in per cent on 10,000 pictures, "
        f"{'one seed' if seeds == 1 else f'{seeds} seeds'};",
        f"dense: {spread(dense)}. By magnitude, by second moments of 512 pictures, and after one more pass whose masks",
        "hold the zeros of the latter; then with one budget of zeros for all layers in the place of the same share of",
        "each, as it is, after such a pass, and after one that is distilled from the dense network, and what is left",
        "of the multiply-accumulates; and with a budget that counts what layers get wrong by how far it moves the",
        "network's outputs (`of=outputs`), as it is, after such a pass, and what is left of the multiply-accumulates;",
        "*by work*: such a budget that is one of multiply-accumulates (`count=macs`).",
        "",
        "| zeros | pattern | by magnitude | by moments | and one pass | one budget | and one pass | distilled | MACs "
        "| by outputs | and one pass | MACs | by work | and one pass | MACs |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for share in shares:
        for block, name in {**NAMES, "kernels": "8 kernels, balanced"}.items():
            mine = [r for r in found if r["block"] == block and r["sparsity"] == share]
            cells = [
                spread(r[field] for r in mine if r["by"] == by and field in r)
                for by, field in (
                    ("magnitude", "top1"),
                    ("moments", "top1"),
                    ("moments", "epoch"),
                    ("budget", "top1"),
                    ("budget", "epoch"),
                    ("budget", "distilled"),
                    ("budget", "macs_left"),
                    ("outputs", "top1"),
                    ("outputs", "epoch"),
                    ("outputs", "macs_left"),
                    ("work", "top1"),
                    ("work", "epoch"),
                    ("work", "macs_left"),
                )
            ]
            if mine:
                lines.append(f"| {share:.0%} | {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`python -m bench.accuracy.sparsity`; {common.where(*found)}."])


def voices() -> str:
    """What zeros cost two networks that listen, without retraining."""
    found = rows("voices", ("network", "block", "sparsity", "seed"))
    if not found:
        return ""
    sample, draws = found[0], len({r["seed"] for r in found})
    each = {by: len({r["seed"] for r in found if r["network"].endswith(f"by {by}")}) for by in ("shares", "moments")}
    fewer = "".join(f", for {by} {count}" for by, count in each.items() if 0 < count < draws)
    lines = [
        "**Zeros in networks that listen, without retraining**: areas under the ROC curve in per cent; the weights of",
        "least magnitude go, or those of the least share of their row's squares (*by shares*), or those that second",
        "moments of other prompts say are worth least (*by moments*; what is left is solved), the same share in each",
        f"layer; {sample['recordings']} prompts of each of five sets, drawn {draws} times"
        f"{fewer}. silero-vad: speech over",
        "music next to music alone; Resemblyzer: pairs of one speaker next to pairs of two. What the recordings are",
        "stands in `bench/accuracy/voices.py`.",
        "",
        f"| network | zeros | dense | {' | '.join(NAMES.values())} |",
        f"|---|--:|{'--:|' * (len(NAMES) + 1)}",
    ]
    for network in dict.fromkeys(r["network"] for r in found):
        mine = [r for r in found if r["network"] == network]
        dense = spread(r["auc"] for r in mine if r["block"] == "dense")
        for share in sorted({r["sparsity"] for r in mine if r["block"] != "dense"}):
            of = [[r["auc"] for r in mine if (r["block"], r["sparsity"]) == (block, share)] for block in NAMES]
            lines.append(f"| {network} | {share:.0%} | {dense} | {' | '.join(map(spread, of))} |")
    return "\n".join([*lines, "", f"`python -m bench.accuracy.voices`; {common.where(*found)}."])


def kernels() -> str:
    """What block-sparse kernels gain over the fastest dense one, by the share of blocks that are kept."""
    found = [r for r in common.read(common.RESULTS / "sparse.jsonl") if "layer" in r]
    mine = list({(_layers(r), r["layer"], r["threads"], r["density"]): r for r in found}.values())
    if not mine:
        return ""
    loads = [r["load"] for r in mine]
    lines = [
        "**Block-sparse kernels**, those for zeros that make no blocks (*irregular*), and for 3x3 kernels that are",
        "zero as a whole for a block of outputs (*whole kernels*, by Winograd's algorithm): means over layers,",
        "against the fastest of the dense kernels (direct, Strassen's, Winograd's) and the direct one; share of the",
        "peak of fused multiply-adds, counted on what is multiplied (of the convolution: Winograd's multiplies less). "
        f"{'Minima' if mine[0]['least'] else 'Medians'} of kernels by turns, on a machine with a load of "
        f"{min(loads):.0f} to {max(loads):.0f}.",
        "",
        "| layers | threads | kept | gain | over direct | share of the peak |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for part, threads in sorted({(_layers(r), r["threads"]) for r in mine}):
        of = [r for r in mine if (_layers(r), r["threads"]) == (part, threads)]
        for density in sorted({r["density"] for r in of}, reverse=True):
            at = [r for r in of if r["density"] == density]
            cells = [f"{_mean([r[k] for r in at]):.2f}" for k in ("gain", "gain_direct", "share_of_peak")]
            lines.append(f"| {len(at)} of {part} | {threads} | {density:.0%} | {' | '.join(cells)} |")
    return "\n".join([*lines, *_whole(), "", f"`python -m bench.speed.sparse`; {common.where(*mine)}."])


def _layers(row: common.Row) -> str:
    """The kernel of its layers, and their zeros where these make no blocks."""
    return f"{row['part']}, {row['zeros']}" if "zeros" in row else str(row["part"])


def _whole() -> list[str]:
    """Whole networks, recurrent and linear layers over our dense libraries."""
    found = [r for r in common.read(common.RESULTS / "sparse.jsonl") if "network" in r]
    mine = {(r["part"], r["network"], r.get("block", "auto"), r["threads"]): r for r in found}
    if not mine:
        return []
    lines = ["", "| network | threads | zeros | dense, ms | ms | gain | load |", "|---|--:|---|--:|--:|--:|--:|"]
    for (_, network, block, threads), r in mine.items():
        cells = [*(f"{r[k]:.2f}" for k in ("dense_ms", "sparse_ms", "gain")), f"{r['load']:.0f}"]
        what = {"lstm": "LSTM ", "linear": "linear "}.get(r["part"], "") + network.removeprefix("ref/").replace(
            ", 1 rows", ", 1 row"
        )
        names = NAMES | {"auto": "balanced blocks", COLUMNS: "whole columns"}
        zeros = f"{r['sparsity']:.0%} {names.get(block, block)}"
        lines.append(f"| {what} | {threads} | {zeros} | {' | '.join(cells)} |")
    return lines


def peers() -> str:
    """Layers and networks with zeros in other runtimes, milliseconds."""
    found = common.read(common.RESULTS / "sparse_peers.jsonl")
    mine = list({(r.get("layer"), r.get("network"), r["density"], r["pattern"]): r for r in found}.values())
    if not mine:
        return ""
    loads = [r["load"] for r in mine]
    lines = [
        "**Zeros in other runtimes**: milliseconds on one thread, the least of the rounds, on a machine with a load of",
        f"{min(loads):.0f} to {max(loads):.0f}. The same ONNX file with the same zeros: *balanced* in blocks of 8,",
        "which are ours, or *irregular*, which are DeepSparse's. A library of one layer turns its input and its",
        "output, as whole networks do once.",
    ]
    for kind in ("layer", "network"):
        of = [r for r in mine if kind in r]
        if not of:
            continue
        names = list(dict.fromkeys(name for r in of for name in r["ms"]))
        lines += ["", f"| {kind} | kept | zeros | {' | '.join(names)} |", "|---|--:|---|" + "--:|" * len(names)]
        for r in of:
            cells = [f"{v:.2f}" if isinstance(v := r["ms"].get(name), float) else "–" for name in names]
            lines.append(
                f"| {r[kind].removeprefix('ref/')} | {r['density']:.0%} | {r['pattern']} | {' | '.join(cells)} |"
            )
    return "\n".join([*lines, "", f"`python -m bench.speed.sparse_peers`; {common.where(*mine)}."])


def _mean(of: Sequence[float]) -> float:
    return statistics.geometric_mean(of)
