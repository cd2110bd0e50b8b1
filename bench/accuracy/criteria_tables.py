"""What ``accuracy.criteria`` and ``speed.sweep`` found, as tables; ``lib.plots`` draws the same numbers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.lib import common

RESULTS = common.ROOT / "bench" / "results"
REMOVED = (0.25, 0.5, 0.7)
LARGE = ("mobilenet_v2", "efficientnet_lite0")
PICTURES = 1024  # that networks were repaired with, in rows that do not say
Where = Callable[..., str]


def rows(path: Path = RESULTS / "criteria.jsonl") -> list[common.Row]:
    """The newest row of every cell."""
    keys = ("part", "network", "seed", "criterion", "removed", "repair")
    return list({tuple(r[k] for k in keys): r for r in common.read(path)}.values())


def values(found: Iterable[common.Row], part: str, criterion: str, removed: float, repair: str) -> list[float]:
    """Top-1 of every network and seed in such a cell; those that refused are left out."""
    return [
        r["top1"] for r in found
        if (r["part"], r["criterion"], r["removed"], r["repair"]) == (part, criterion, removed, repair) and "top1" in r
    ]  # fmt: skip


def spread(numbers: Sequence[float]) -> str:
    """Per cent: the mean, and the standard deviation over networks and seeds."""
    if not numbers:
        return "–"
    mean = f"{100 * statistics.mean(numbers):.1f}"
    return f"{mean} ± {100 * statistics.stdev(numbers):.1f}" if len(numbers) > 1 else mean


def gained(found: Iterable[common.Row], criterion: str, removed: float) -> str:
    """Points that ``distill`` adds to ``refit``, in the mean of the networks and seeds that have both."""
    top: dict[str, dict[tuple[str, int], float]] = {"compensation": {}, "distill": {}}
    for r in found:
        if (r["part"], r["criterion"], r["removed"]) == ("fashion", criterion, removed) and r["repair"] in top:
            top[r["repair"]] |= {(r["network"], r["seed"]): r["top1"]} if "top1" in r else {}
    more = [value - top["compensation"][of] for of, value in top["distill"].items() if of in top["compensation"]]
    return f"{100 * statistics.mean(more):+.1f}" if more else "–"


def criteria(found: Sequence[common.Row]) -> list[str]:
    """The names, best first at 50 % with compensation; those of fewer networks, which do not compare, last."""
    names = dict.fromkeys(r["criterion"] for r in found if r["criterion"] != "dense")

    most = max((len(_networks(found, name)) for name in names), default=0)

    def place(name: str) -> tuple[bool, float]:
        known = values(found, "fashion", name, 0.5, "compensation")
        return len(_networks(found, name)) == most, statistics.mean(known) if known else 0.0

    return sorted(names, key=place, reverse=True)


def photos(found: Iterable[common.Row], network: str, criterion: str, removed: float = 0.15) -> str:
    """Photos of twenty that are right, and on how many the slim network agrees with the dense one."""
    for r in found:
        key = (r["part"], r["network"], r["criterion"], r["removed"], r["repair"])
        if key == ("imagenet", network, criterion, removed, "compensation") and "top1" in r:
            return f"{round(20 * r['top1'])}, {round(20 * r['agreement'])}"
    return "–"


def table(where: Where) -> str:
    """Every criterion next to the others."""
    found = rows()
    if not found:
        return ""
    dense = values(found, "fashion", "dense", 0.0, "none")
    seeds = len({r["seed"] for r in found if r["part"] == "fashion"})
    over = f"{seeds} seeds" if seeds > 1 else "one seed"
    lines = [
        "**Criteria**: top-1 in per cent on Fashion-MNIST after 25, 50 and 70 % of the multiply-accumulates are gone,",
        f"mean and standard deviation over five small networks and {over} (dense: {spread(dense)}). *bare*:",
        "nothing repaired; *mended*: `refit`, without training; *tuned*: how many points more it is after `distill`, a",
        "hundred steps on the 256 pictures that scores were taken of, without labels, on the networks where both were",
        f"measured{_tuned(found)}; *epoch*: one epoch of training with labels after *mended*, on two of the networks.",
        "On the right, of twenty photos: how many are right and on how many the network agrees with the dense one, at",
        "15 % fewer multiply-accumulates, mended by `refit{ridge=10%},reestimate_bn` with crops of ten",
        f"other photos{_dense_photos(found)}.",
        "",
        "![Accuracy at half of the multiply-accumulates](criteria.svg)",
        "",
        "| criterion | 25 % bare | mended | tuned | 50 % bare | mended | tuned | epoch | 70 % bare | mended | tuned "
        "| MobileNetV2 | Lite0 |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in criteria(found):
        cells = []
        for removed in REMOVED:
            bare, mended = (values(found, "fashion", name, removed, repair) for repair in ("none", "compensation"))
            cells += [spread(bare), spread(mended), gained(found, name, removed)]
        cells.insert(6, spread(values(found, "trained", name, 0.5, "one epoch")))
        cells += [photos(found, network, name) for network in LARGE]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    refusals = dict.fromkeys(f"`{r['criterion']}` on {r['network']}: {r['refused']}" for r in found if "refused" in r)
    counts = {name: len(_networks(found, name)) for name in criteria(found)}
    few = [f"`{name}` {n}" for name, n in counts.items() if n < max(counts.values())]
    lines += ["", *([f"Of fewer networks than {max(counts.values())}: {', '.join(few)}."] if few else [])]
    lines += [*(["Refused: " + "; ".join(refusals) + "."] if refusals else []), _trained(found)]
    last = [r for r in found if r["part"] == "imagenet"][-1:]
    lines.append(f"`python -m bench.accuracy.criteria`; [what to choose when](criteria.md); {where(found[0], *last)}.")
    return "\n".join(line for line in lines if line is not None)


def _networks(found: Iterable[common.Row], criterion: str, repair: str = "compensation") -> set[tuple[str, int]]:
    of = (r for r in found if (r["part"], r["criterion"], r["repair"]) == ("fashion", criterion, repair))
    return {(r["network"], r["seed"]) for r in of if "top1" in r}


def _tuned(found: Sequence[common.Row]) -> str:
    """Of how many networks, where these are fewer for some criterion."""
    counts = [len(_networks(found, name, "distill")) for name in criteria(found)]
    most = max((len(_networks(found, name)) for name in criteria(found)), default=0)
    return "" if min(counts, default=0) == most else f" ({min(counts)} to {max(counts)} networks)"


def _dense_photos(found: Sequence[common.Row]) -> str:
    right = [str(round(20 * r["top1"])) for r in found if r["part"] == "imagenet" and r["criterion"] == "dense"]
    return f" (dense: {' and '.join(right)} right)" if right else ""


def _trained(found: Sequence[common.Row]) -> str:
    """The networks that trained for one epoch, next to dense ones and the same shapes from nothing."""
    parts = []
    for network in dict.fromkeys(r["network"] for r in found if r["part"] == "trained"):
        mine = [r for r in found if r["network"] == network]

        def top(criterion: str, repair: str, removed: float = 0.5, mine: list[common.Row] = mine) -> list[float]:
            return values(mine, "trained", criterion, removed, repair)

        names = dict.fromkeys(r["criterion"] for r in mine if r["repair"] == "one epoch")  # of equals, the first
        if not names:
            continue
        best = max(names, key=lambda name: statistics.mean(top(name, "one epoch")))
        scratch = [t for name in names for t in top(name, "scratch")]
        long = [t for name in names for t in top(name, "scratch long")]
        parts.append(
            f"{network}: dense {spread(top('dense', 'none', 0.0))}, best after one epoch `{best}` "
            f"{spread(top(best, 'one epoch'))}, such shapes from nothing {spread(scratch)} after one epoch and "
            f"{spread(long)} after four"
        )
    return "At 50 %, all 10,000 test pictures: " + "; ".join(parts) + "." if parts else ""


def sweep(where: Where) -> str:
    """What one sweep for all criteria costs."""
    found, lines = sweeps(), []
    for name, r in ((n, r) for n, r in found.items() if "ratio" in r):
        scores = {k: s for k, s in r["score_s"].items() if isinstance(s, float)}
        slowest = max(scores, key=scores.__getitem__)
        text = (
            f"- {name.partition('/')[2]}, {r['examples']} pictures: {r['ratio']:.2f} times a forward and backward pass;"
            f" then each criterion scores in at most {scores[slowest]:.1f} s (`{slowest}`)"
        )
        if "peak_bytes" in r:
            peaks = r["peak_bytes"]
            text += f"; peak memory {peaks['all'] / 1e9:.2f} GB, {peaks['none'] / 1e9:.2f} of them to run it"
        lines.append(text + ".")
    if not lines:
        return ""
    head = "**One sweep** over the calibration data serves all criteria:"
    link = "[by criterion](criteria.md#what-a-criterion-costs)"
    return "\n".join([head, "", *lines, "", f"`python -m bench.speed.sweep`; {link}; {where(*found.values())}."])


def sweeps() -> dict[str, common.Row]:
    """What is known of each network: times and memory may come from runs of their own."""
    found: dict[str, common.Row] = {}
    for r in common.read(RESULTS / "sweep.jsonl"):
        before = found.get(r["network"], {})
        found[r["network"]] = before | r | {"score_s": before.get("score_s", {}) | r.get("score_s", {})}
    return found


def costs(where: Where) -> str:
    """Memory and time of each criterion, for docs/criteria.md."""
    found = {name: r for name, r in sweeps().items() if "ratio" in r and "peak_bytes" in r}
    if not found:
        return ""
    titles = [f"{name.partition('/')[2]}, {what}" for name in found for what in ("GB", "score s")]
    lines = [f"| criterion | {' | '.join(titles)} |", f"|---|{'--:|' * len(titles)}"]
    names = list(dict.fromkeys(k for r in found.values() for k in (*r["score_s"], "all", "none")))
    for name in sorted(names, key=("all", "none").__contains__):  # these two last
        cells = []
        for r in found.values():
            seconds = r["score_s"].get(name)
            cells.append(f"{r['peak_bytes'][name] / 1e9:.2f}" if name in r["peak_bytes"] else "–")
            cells.append(f"{seconds:.2f}" if isinstance(seconds, float) else "refused" if seconds else "–")
        title = {"all": "all at once", "none": "none: the network alone"}.get(name, f"`{name}`")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`python -m bench.speed.sweep`; {where(*found.values())}."])


def repair_cell(row: common.Row) -> tuple[Any, ...]:
    """What a row of ``accuracy.repair`` measured: pictures, network, seed, criterion, share left, repair."""
    return row.get("pictures", PICTURES), *(row[k] for k in ("network", "seed", "criterion", "left", "repair"))


def repair(where: Where) -> str:
    """What repair without labels gives back, in the mean of the networks that were measured."""
    measured = common.read(RESULTS / "repair.jsonl")
    if not measured:
        return ""
    cells = {repair_cell(r): r for r in measured}
    dense = {key[1:3]: r["top1"] for key, r in cells.items() if r["criterion"] == "dense"}
    lines = [
        f"**Repair without labels**: {len(dense)} networks of the five kinds above, judged on 10,000 test pictures;",
        f"dense: {spread(list(dense.values()))}. *kept*: the same answer as the original's; means and standard",
        "deviations over networks.",
        "",
        "| pictures | multiply-accumulates left | chosen by | repair | networks | top-1 | kept | CPU s |",
        "|--:|--:|---|---|--:|--:|--:|--:|",
    ]
    kinds: dict[tuple[Any, ...], list[common.Row]] = {}
    for (pictures, _, _, *what), r in cells.items():
        if r["criterion"] != "dense":
            kinds.setdefault((pictures, *what), []).append(r)
    for (pictures, criterion, left, mended), of in kinds.items():
        top1, kept = (spread([r[name] for r in of]) for name in ("top1", "agreement"))
        steps = max(r.get("steps", 0) for r in of)
        tuning = {"distill": "", "mixed": ",mix=true"}
        named = f"`refit`, `distill{{steps={steps}{tuning.get(mended, '')}}}`"
        mending = named if mended in tuning else {"refit": "`refit`"}.get(mended, mended)
        chosen = "`obs`, `knapsack{loss=sum}`" if criterion == "obs" else f"`{criterion}`, `global`"
        spent = statistics.fmean(r["cpu_s"] for r in of)
        lines.append(
            f"| {pictures:,} | {left:.0%} | {chosen} | {mending} | {len(of)} | {top1} | {kept} | {spent:.0f} |"
        )
    tuned = [
        f"with {pictures:,} pictures {_by_network(of)}"
        for (pictures, *what), of in kinds.items() if what == ["obs", 0.5, "distill"]
    ]  # fmt: skip
    lines += ["", f"At 50 % after `distill`: {'; '.join(tuned)}."]
    return "\n".join([*lines, f"`python -m bench.accuracy.repair`; {where(*measured)}."])


def _by_network(of: Iterable[common.Row]) -> str:
    """Top-1 of each kind of network, the mean of its seeds."""
    found: dict[str, list[float]] = {}
    for row in of:
        found.setdefault(row["network"], []).append(row["top1"])
    return ", ".join(f"{name} {100 * statistics.fmean(each):.1f}" for name, each in found.items())
