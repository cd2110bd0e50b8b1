"""The README's part on rewrites, from the committed results and nothing else; `readme.py` puts it in its place."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable, Sequence

from bench.accuracy import factored
from bench.lib import common

GROUPS = (1, 2, 3, 4, 8)
SUBJECTS = ("fashion_resnet", "open_nsfw", "mobilenet_v2")
REWRITES = ("separable", "grouped", "shuffled", "low_rank", "squeeze_excite", "regroup", "drop_layer")


def rows(name: str) -> list[common.Row]:
    """The rows of a results file."""
    return common.read(common.RESULTS / f"{name}.jsonl")


def block() -> str:
    """Everything on rewrites."""
    parts = (end_to_end(), groups(), from_trained(), repaired(), shuffles(), modularity())
    return "\n\n".join(part for part in parts if part)


def repaired() -> str:
    """Closed forms of the weights, and what ``refit`` makes of them."""
    found = rows("factored")
    if not found:
        return ""
    said = (
        f"**Repaired by `refit`**, on {found[0]['pictures']:,} unlabelled pictures: top-1 on 10,000 of trained "
        "networks after a rewrite in closed form, by weights alone and with both layers solved together; after a cut; "
        "and after a cut of a network that was rewritten and repaired before."
    )
    return "\n".join([*textwrap.wrap(said, 118), "", factored.table(found), "", "`python -m bench.accuracy.factored`."])


def end_to_end() -> str:
    """Each rewrite next to a plain network of its multiply-accumulates."""
    found = rows("rewrites")
    if not any(r.get("network") == "plain" for r in found):
        return ""
    sample = next(r for r in found if r.get("network") == "plain")
    said = (
        "**Rewrites, end to end** on Fashion-MNIST: a small residual network rewritten, trained on "
        f"{sample['examples']:,} pictures for {sample['epochs']:g} passes, pruned to half of its "
        "multiply-accumulates, tuned for half a pass, "
        "written as ONNX and checked. *plain* is the same network without the rewrite, as narrow as the rewrite's "
        "multiply-accumulates ask for. Top-1 on 10,000 pictures, mean and half of the range over the seeds; "
        "microseconds in ONNX Runtime and in secateur's code."
    )
    lines = [
        *textwrap.wrap(said, 118),
        "",
        "| rewrite | MACs | params | top-1 | plain | at half the MACs | plain | us | plain us | seeds |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in ("plain", *REWRITES):
        mine = of(found, name)
        partner = of(found, "plain" if name == "squeeze_excite" else f"plain at {name}") if name != "plain" else []
        if not mine:
            continue
        cells = [name, *size(mine)]
        cells += [points(side, key) for key in ("accuracy", "pruned") for side in (mine, partner)]
        lines.append(f"| {' | '.join(cells)} | {micro(found, mine)} | {micro(found, partner)} | {len(mine)} |")
    worst = max(r["law"]["max_rel_err"] for r in found if "law" in r)
    held = sum(r["law"]["passed"] for r in found if "law" in r)
    told = (
        f"The law held for all {held} pruned networks" if held == sum("law" in r for r in found) else "THE LAW FAILED"
    )
    return "\n".join([*lines, "", f"{told}, largest error {worst:.0e}. `python -m bench.accuracy.rewrites`."])


def of(found: Iterable[common.Row], name: str) -> list[common.Row]:
    """This network's rows, one a seed, the newest."""
    return list({r["seed"]: r for r in found if r.get("network") == name}.values())


def size(mine: Sequence[common.Row]) -> tuple[str, str]:
    """Multiply-accumulates and parameters."""
    return f"{mine[0]['macs'] / 1e6:.2f} M", f"{mine[0]['params'] / 1e3:.1f} k"


def points(mine: Sequence[common.Row], key: str) -> str:
    """Per cent over the seeds."""
    values = [100 * r[key] for r in mine]
    return f"{statistics.mean(values):.2f} ± {(max(values) - min(values)) / 2:.2f}" if values else ""


def micro(found: Iterable[common.Row], mine: Sequence[common.Row]) -> str:
    """The newest latencies of a network: ONNX Runtime / secateur."""
    if not mine:
        return ""
    times = {r["runtime"]: r["ms"] for r in found if r.get("latency") == mine[0]["network"]}
    return " / ".join(f"{1000 * times[r]:.0f}" for r in ("onnxruntime", "secateur") if r in times)


def groups() -> str:
    """ShuffleNets of one complexity over their number of groups."""
    found = rows("rewrites")
    if not of(found, "shufflenet g=1"):
        return ""
    lines = [
        "**More groups, more channels** at one complexity, as ShuffleNet's table 2 asks, on ShuffleNets scaled down:",
        "",
        "| groups | MACs | params | top-1 | at half the MACs | us | seeds |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for count in GROUPS:
        mine = of(found, f"shufflenet g={count}")
        if mine:
            share = mine[0].get("share", 0.5)
            slim = points(mine, "pruned") + (f" (at {share:.0%})" if share != 0.5 else "")
            cells = [str(count), *size(mine), points(mine, "accuracy"), slim, micro(found, mine)]
            lines.append(f"| {' | '.join(cells)} | {len(mine)} |")
    return "\n".join(lines)


def from_trained() -> str:
    """What closed forms leave of trained layers."""
    found = rows("from_trained")
    if not found:
        return ""
    said = (
        "**From trained weights**: every layer that a rewrite fits, in closed form; before and after tuning once. "
        "Wrong answers for the residual network trained here, mean over its seeds; for open_nsfw and MobileNetV2, that "
        "come without training data, the relative error of the logits on six photos, tuned on 240 crops of "
        "fourteen others, from layers refitted on these where that is nearer. Rates are chosen by pictures that "
        "neither tune nor judge. *refitted* is the error that tuning starts from, *fitted* what it leaves on pictures "
        "that were tuned on, *after* on those that judge."
    )
    if blind := {r["network"]: r for r in rows("from_trained_constant")}:
        shares = (f"{n} {r['fitted']:.1%} and {r['after']:.1%}" for n, r in blind.items())
        said += (
            " The mean of the targets as the answer to every picture has, in these two columns, "
            f"{'; '.join(shares)}: what comes to that has learnt no more."
        )
    lines = [
        *textwrap.wrap(said, 118),
        "",
        "![Error over what remains](from_trained.svg)",
        "",
        "| network (as it was) | rewrite, levels | MACs left | of the weights | before | refitted | fitted | after |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for network in SUBJECTS:
        for rewrite in dict.fromkeys(r["rewrite"] for r in found if r["network"] == network):
            mine = [r for r in found if (r["network"], r["rewrite"]) == (network, rewrite)]
            levels = list(dict.fromkeys(r["level"] for r in mine))
            keys = ("macs_share", "weights_error", "before", "started", "fitted", "after")
            cells = [slashed(mine, levels, k) for k in keys]
            option = str(mine[0]["spec"]).partition("{")[2].partition("=")[0]
            title = f"{network} ({statistics.mean(r['original'] for r in mine):.1%})"
            shown = f"{rewrite}, {option} {' / '.join(map(str, levels))}"
            lines.append(f"| {title} | {shown} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "`python -m bench.accuracy.from_trained`."])


def slashed(mine: Sequence[common.Row], levels: Sequence[object], key: str) -> str:
    """The mean over the seeds at each level, in per cent."""
    values = [statistics.mean(r[key] for r in mine if r["level"] == level) for level in levels]
    return " / ".join(f"{100 * v:.0f}" if v >= 1 else f"{100 * v:.1f}" for v in values) + " %"


def shuffles() -> str:
    """Shuffles that are left as copies."""
    found = list({r["network"]: r for r in rows("shuffles")}.values())
    if not found:
        return ""
    total, left = sum(r["shuffles"] for r in found), sum(r["copies"] for r in found)
    names = ", ".join(f"{r['network'].partition('/')[2]} {r['shuffles']} ({r['absorbed']} in weights)" for r in found)
    said = (
        f"**Shuffles**: of {total} in {len(found)} networks {left} are left as copies in generated code: {names}. "
        f"Outputs after `fold_shuffle` agree to {max(r['error'] for r in found):.0e}. `python -m bench.reach.shuffles`."
    )
    return "\n".join(textwrap.wrap(said, 118))


def modularity() -> str:
    """Networks and their shuffles."""
    found = rows("modularity")
    if not found:
        return ""
    lines = [
        "**Modularity**: n-cut of four clusters of channels, and that of shuffled weights (mean), over the seeds.",
        "",
        "![n-cuts next to shuffled ones](modularity.svg)",
        "",
        "| network | | n-cut | shuffled | p |",
        "|---|---|--:|--:|--:|",
    ]
    for network, state in dict.fromkeys((r["network"], r["state"]) for r in found):
        mine = [r for r in found if (r["network"], r["state"]) == (network, state)]
        cut, null = (
            statistics.mean(v) for v in ([r["ncut"] for r in mine], [statistics.mean(r["null"]) for r in mine])
        )
        p = ", ".join(f"{r['p']:.2f}" for r in mine)
        lines.append(f"| {network} | {state} | {cut:.3f} | {null:.3f} | {p} |")
    return "\n".join([*lines, "", "`python -m bench.reach.modularity`."])
