"""What ``accuracy.lottery`` and ``accuracy.training`` found, as tables of docs/results.md; rows alone are read."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from bench.accuracy.lottery import DENSITY, KEY, OTHERS
from bench.lib import common

ONES = ("rewind", "reshuffle_signed", "reinit_signed", "constant_signed", "reshuffle", "reinit", "constant")


def rows(name: str, keys: Sequence[str]) -> list[common.Row]:
    """The newest row of every cell."""
    found = common.read(common.RESULTS / f"{name}.jsonl")
    return list({tuple(r[k] for k in keys): r for r in found}.values())


def spread(found: Iterable[float]) -> str:
    """Per cent: the mean, and the standard deviation where there are several."""
    numbers = [100 * x for x in found]
    if not numbers:
        return "–"
    mean = f"{statistics.mean(numbers):.1f}"
    return f"{mean} ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else mean


def lottery() -> str:
    """Signs, criteria, and masks of untrained networks."""
    found = rows("lottery", KEY)
    if not any(r["part"] == "actions" for r in found):
        return ""

    def top(part: str, **of: object) -> str:
        return spread(r["top1"] for r in found if r["part"] == part and all(r[k] == v for k, v in of.items()))

    sample = found[0]
    seeds = len({r["seed"] for r in found})
    over = "one seed" if seeds == 1 else f"{seeds} seeds"
    lines = [
        "**Lottery tickets** ([Zhou et al. 2019](fine-tune.md#sparsity-in-training)): a network of 196, 128, 64 and 10",
        f"units on Fashion-MNIST at 14x14, {sample['passes']:g} passes over {sample['examples']:,} pictures, cut in",
        "one shot by `large_final`, and trained again from where an action puts what is kept. Top-1 in per cent on",
        f"10,000 pictures, {over}; dense: {top('dense')}. `_signed` keeps the sign of the initial weight.",
        "",
        "| kept weights start | " + " | ".join(f"{d:.0%} kept" for d in (OTHERS[0], DENSITY, OTHERS[1])) + " |",
        "|---|--:|--:|--:|",
    ]
    for one in ONES:
        cells = [top("actions", one=one, zero="zero", density=d) for d in (OTHERS[0], DENSITY, OTHERS[1])]
        lines.append(f"| `{one}` | {' | '.join(cells)} |")
    zeros = [
        (z, top("actions", one="rewind", zero=z, density=DENSITY)) for z in ("freeze", "zero_shrunk", "zero_all_shrunk")
    ]
    criteria = dict.fromkeys(r["criterion"] for r in found if r["part"] == "criteria")
    untrained = dict.fromkeys((r["criterion"], r["one"]) for r in found if r["part"] == "untrained")
    said = [
        _list(f"Removed weights, at {DENSITY:.0%}", zeros),
        _list(f"Other criteria, rewound, at {DENSITY:.0%}", [(c, top("criteria", criterion=c)) for c in criteria]),
        _list("Without training, half of the weights", [
            (c if one == "rewind" else f"{c}, {one}", top("untrained", criterion=c, one=one)) for c, one in untrained
        ]),
        _list("After four rounds that halve", [(one, top("rounds", one=one)) for one in ("rewind", "reinit")]),
    ]  # fmt: skip
    return "\n".join([*lines, "", *filter(None, said), f"`python -m bench.accuracy.lottery`; {common.where(*found)}."])


def _list(what: str, found: Sequence[tuple[str, str]]) -> str:
    known = [f"`{name}` {value}" for name, value in found if value != "–"]
    return f"{what}: {', '.join(known)}." if known else ""


def training() -> str:
    """Methods that train sparse next to criteria that cut afterwards, at equal multiply-accumulates."""
    found = rows("training", ("method", "seed"))
    methods = [m for m in dict.fromkeys(r["method"] for r in found) if m != "dense"]
    if not methods:
        return ""
    sample = found[0]

    def of(method: str, field: str) -> str:
        return spread(r[field] for r in found if r["method"] == method and field in r)

    seeds = len({r["seed"] for r in found})
    lines = [
        "**Sparse in training, next to cut afterwards**: a small residual network on Fashion-MNIST at 14x14,",
        f"{sample['passes']} passes over {sample['examples']:,} pictures in all, half of the multiply-accumulates",
        f"left, {'one seed' if seeds == 1 else f'{seeds} seeds'}; dense: {of('dense', 'top1')}. *exact*: what `zeros`",
        "alone leaves of the multiply-accumulates, in per cent.",
        "",
        "| method | trained | exact | after the cut | after one more pass |",
        "|---|--:|--:|--:|--:|",
    ]
    for method in methods:
        cells = [of(method, field) for field in ("trained", "exact_macs", "bare", "top1")]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`python -m bench.accuracy.training`; {common.where(*found)}."])
