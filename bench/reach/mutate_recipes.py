"""What damaged, hand-edited and hostile recipes and policies end in: one clear error, or a result that holds.

``recipe(number)`` and ``policy(number)`` are functions of their number alone: a valid file of one of several kinds, in
which one to three things were changed: a value of another kind or size, an index, an option, a key, an entry of a list,
some text. Each is read and used, on a small network with drawn weights. A recipe that is accepted must give a network
that equals the original masked by that very recipe and has the widths that it states; a policy that is accepted must
print and parse to itself, and compile to a network for which the law holds, or end in one of secateur's own errors.

    python -m bench.reach.mutate_recipes --count 3000
"""

from __future__ import annotations

import copy
import json
import random
import signal
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from types import FrameType
from typing import Any

import numpy as np

import secateur
from bench.lib.common import Row, append, circumstances, parser, table
from bench.reach.mutated_texts import NUMBERS, TEXTS, as_toml, change, places_in, reworded, spoiled
from secateur.ir import Graph, parse_graph, reinfer
from secateur.passes import PASSES, Pipeline
from secateur.passes.coupling.couple import Couple
from secateur.passes.law import check
from secateur.passes.pipeline import options_of, split_outside
from secateur.passes.recipe import Recipe
from secateur.passes.recipe.mask import with_mask
from secateur.passes.recipe.schema import read_steps
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.replay import rewritten
from secateur.run import Runner

SLOW = 10  # seconds of the processor, so that what else runs on the machine does not count
CONV = "dilation=[1,1] pad=[1,1,1,1] stride=[1,1]"
NET = f"""graph small
  in  %x : f32[1, 3, 6, 6]
  %a = conv(%x, @a.weight, @a.bias) {CONV} groups=1 : f32[1, 8, 6, 6]
  %n = batch_norm(%a, @n.weight, @n.bias, @n.mean, @n.v) eps=1e-05 momentum=0.1 : f32[1, 8, 6, 6]
  %r = relu(%n) : f32[1, 8, 6, 6]
  %b = conv(%r, @b.weight) {CONV} groups=2 : f32[1, 8, 6, 6]
  %s = add(%r, %b) : f32[1, 8, 6, 6]
  %t = softmax(%s) axis=1 : f32[1, 8, 6, 6]
  %c = conv(%t, @c.weight, @c.bias) {CONV} groups=1 : f32[1, 12, 6, 6]
  %q = relu(%c) : f32[1, 12, 6, 6]
  %p = reduce_mean(%q) axes=[2,3] keepdims=False : f32[1, 12]
  %y = linear(%p, @y.weight, @y.bias) transposed=False : f32[1, 5]
  out %y
weights
  @a.weight f32[8, 3, 3, 3]
  @a.bias f32[8]
  @n.weight f32[8]
  @n.bias f32[8]
  @n.mean f32[8]
  @n.v f32[8]
  @b.weight f32[8, 4, 3, 3]
  @c.weight f32[12, 8, 3, 3]
  @c.bias f32[12]
  @y.weight f32[5, 12]
  @y.bias f32[5]
"""
POLICIES = (
    "l1,uniform{params=60%,round_to=1},slim",
    "separable{rank=1},l1,uniform{params=40%,round_to=1},slim",
    "l2,uniform{params=60%,round_to=1},slim,refit",
    "low_rank{ratio=0.5},random{seed=3},uniform{params=30%,round_to=2},slim,reestimate_bn",
)
LINES = (
    "l1", "none", "taylor,knapsack{macs=50%},slim,refit", "couple{protect=[a,c*]},l2,global{params=60%,floor=20%},slim",
    "low_rank{ratio=0.5},fold_constants,random{seed=3},uniform{bytes=30%,round_to=2},slim,reestimate_bn",
    "shuffled{groups=2},fpgm,sensitivity{macs=70%},slim,fold_constants{varying=false}",
    "l1,global{macs=120K,rounds=2,round_to=1},slim", "grouped{groups=2,layers=[b]},squeeze_excite,regroup{groups=2}",
    "thinet,global{macs=50%},slim", "ccp,knapsack{params=50%,round_to=4},slim,refit{ridge=0.1,examples=4}",
)  # fmt: skip


@cache
def network() -> Graph:
    """A residual block with a grouped layer, a softmax over channels, and a classifier; 8 and 12 channels wide."""
    graph = parse_graph(NET)
    rng = np.random.default_rng(0)
    drawn = {n: rng.uniform(0.5, 2, w.shape) if n.endswith(".v") else rng.standard_normal(w.shape)
             for n, w in graph.weights.items()}  # fmt: skip
    return reinfer(graph.rewrite(weights={n: w.astype(np.float32) for n, w in drawn.items()}))


@cache
def data() -> list[Any]:
    """One batch of eight examples."""
    return [np.random.default_rng(1).standard_normal((8, 3, 6, 6)).astype(np.float32)]


@cache
def bases() -> tuple[dict[str, Any], ...]:
    """Recipes of each kind: plain, after rewrites, with compensation, with both."""
    made = (secateur.compile(network(), line, calibration=data() if "re" in line else None) for line in POLICIES)
    return tuple(json.loads(done.recipe.to_json()) for done in made)


def recipe(number: int) -> str:
    """The text of mutant ``number``."""
    rng = random.Random(number)
    body = copy.deepcopy(rng.choice(bases()))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(places_in(body))
        holder, key = rng.choice(places)
        if rng.random() < 0.5:  # most numbers of a recipe are indices: give its other parts half of the changes
            holder, key = rng.choice([p for p in places if not isinstance(p[1], int)] or places)
        change(rng, holder, key)
    text = json.dumps(body)
    return spoiled(rng, text) if rng.random() < 0.15 else text


def policy(number: int) -> tuple[str, bool]:
    """The text of mutant ``number``, and whether it is a file (TOML) or a line."""
    rng = random.Random(number)
    line = rng.choice(LINES)
    toml = rng.random() < 0.5
    if rng.random() < 0.4:
        line = _optioned(rng, line)
    try:
        text = secateur.Policy.parse(line).to_toml() if toml else line
    except secateur.InputError:
        return line, False
    times = rng.choice((0, 1, 1, 2, 3))
    if toml and rng.random() < 0.6:
        body = tomllib.loads(text)
        for _ in range(times):
            change(rng, *rng.choice(list(places_in(body)) or [(body, "budget")]))
        return as_toml(body), toml
    for _ in range(times):
        text = reworded(rng, text, toml)
    return (spoiled(rng, text) if rng.random() < 0.1 else text), toml


def _optioned(rng: random.Random, line: str) -> str:
    """The line with an option of one of its passes set to some value."""
    steps = split_outside(line, ",")
    at = rng.randrange(len(steps))
    name, _, options = steps[at].partition("{")
    fields = [f.name for f in options_of(PASSES[name])] if name in PASSES else []
    value = rng.choice((*TEXTS, *map(str, NUMBERS), "2", "3", "16", "20%", "80%", "[a]", "[b,c]", "auto", "product"))
    new = f"{rng.choice(fields or ['groups'])}={value}"
    steps[at] = f"{name}{{{','.join([*filter(None, [options.rstrip('}')]), new])}}}"
    return ",".join(steps)


# -- judging --------------------------------------------------------------------------------------------------
class TooSlow(BaseException):
    """A mutant took longer than ``SLOW``; no pass may take it for an error of its own."""


@contextmanager
def _bounded() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SLOW)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@lru_cache(maxsize=8)
def coupled(rewrites: tuple[str, ...]) -> Graph:
    """The network after these rewrites with its coupling, which most recipes are refused by."""
    known = Recipe("", {}, {}, steps=read_steps(rewrites))
    return Pipeline((Canonicalize(), Couple()))(rewritten(known, network()))


def of_recipe(number: int, quick: bool = False) -> str:
    """refused, accepted, or what went wrong with this mutant; ``quick`` couples the network once for all of them."""
    text = recipe(number)

    def use() -> str:
        known = Recipe.from_json(text)
        if quick:
            with_mask(known, coupled(known.rewrites))
        done = secateur.apply(known, network())
        found = check(rewritten(known, network()), done.graph, known, run=Runner())
        widths = all(
            done.graph.weights[name].shape[axis] == (len(lists[0]) if isinstance(lists[0], list) else len(lists))
            for name, kept in known.weights.items() for axis, lists in kept.items()
        )  # fmt: skip
        return "accepted" if found.passed and widths else "wrong"

    return _judged(use)


def of_policy(number: int, quick: bool = False) -> str:
    """refused, accepted, or what went wrong with this mutant; ``quick`` only reads and prints it."""
    text, toml = policy(number)

    def use() -> str:
        if toml:
            with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8", errors="surrogatepass") as file:
                file.write(text)
                file.flush()
                read = secateur.Policy.load(file.name)
        else:
            read = secateur.Policy.parse(text)
        again = secateur.Policy.parse(read.spec)
        if read.criterion is not None and (again.spec != read.spec):
            return "wrong"
        if quick or read.budget[0] == "latency_ms":
            return "accepted"
        done = secateur.compile(network(), read, calibration=data())
        law = done.report.verification
        return "accepted" if law is not None and law.passed else "wrong"

    return _judged(use)


def _judged(use: Callable[[], str]) -> str:
    try:
        with _bounded():
            return use()
    except (secateur.InputError, secateur.Unsupported, secateur.BudgetError) as error:
        return "unexpected" if "fault in secateur" in str(error) or len(str(error)) > 2000 else "refused"
    except TooSlow:
        return "slow"
    except secateur.Error:
        return "unexpected"
    except Exception:
        return "crashed"


def survey(kind: str, first: int, count: int, quick: bool = False) -> tuple[Row, dict[str, list[int]]]:
    """The row of the table, and the numbers of the mutants that went wrong."""
    judge = {"recipes": of_recipe, "policies": of_policy}[kind]
    counts: Counter[str] = Counter()
    bad: dict[str, list[int]] = {}
    for number in range(first, first + count):
        outcome = judge(number, quick)
        counts[outcome] += 1
        if outcome not in ("refused", "accepted"):
            bad.setdefault(outcome, []).append(number)
    names = ("crashed", "unexpected", "slow", "wrong", "refused", "accepted")
    return {"kind": kind, "count": count, **{name: counts[name] for name in names}}, bad


def main() -> None:
    """Run all and append the rows."""
    options = parser(__doc__, "mutations.jsonl")
    options.add_argument("--count", type=int, default=3000, help="how many of each kind")
    options.add_argument("--kinds", nargs="+", default=["recipes", "policies"], choices=["recipes", "policies"])
    given = options.parse_args()
    rows = []
    for kind in given.kinds:
        start = time.perf_counter()
        row, bad = survey(kind, given.seed, given.count)
        rows.append({**row, "seconds": round(time.perf_counter() - start, 1), **circumstances(given.seed)})
        for outcome, numbers in bad.items():
            print(kind, outcome, *numbers[:40])
    append(given.output, rows)
    head = list(rows[0])[:8]
    print(table(head, [[row[name] for name in head] for row in rows]))


if __name__ == "__main__":
    main()
