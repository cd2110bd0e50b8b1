"""Does ``secateur verify`` pass a network that is not what the recipe makes of the original?

For recipes of every kind (none, each rewrite, each compensation, both) a small network with drawn weights is compiled,
and changed in one of a dozen ways: random weights, another network, swapped layers, a kept index, a weight off by a
thousandth, a bias at zero, an operator left out. All are written as ONNX and verified with the honest recipe, or with a
recipe that somebody edited. The honest files must pass, and none of the others.

    python -m bench.reach.verify_sabotage
"""

from __future__ import annotations

import dataclasses
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import secateur
from bench.lib.common import Row, append, circumstances, parser, table
from bench.reach.mutate_recipes import data, network
from secateur.ir import Graph
from secateur.passes import Pipeline
from secateur.passes.compensate import Refit
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling
from secateur.passes.recipe import Recipe, Steps
from secateur.passes.recipe.digests import digest
from secateur.passes.recipe.mask import mask_of, with_mask
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.slim import slim
from secateur.replay import rewritten

CUT = "l1,uniform{params=60%,round_to=1},slim"
REWRITES = (
    "separable{rank=1,always=true}", "low_rank{ratio=0.5}", "grouped{groups=2,layers=[c]}",
    "shuffled{groups=2,width=50%,layers=[c]}",
    "regroup{groups=2,layers=[c]}", "squeeze_excite{layers=[b]}", "fold_bn", "fold_constants",
)  # fmt: skip
COMPENSATION = ("refit", "reestimate_bn", "fold_constants")
KINDS = (
    CUT, *(f"{r},{CUT}" for r in REWRITES), *(f"{CUT},{c}" for c in COMPENSATION), f"{CUT},refit,reestimate_bn",
    f"low_rank{{ratio=0.5}},{CUT},refit", f"shuffled{{groups=2,width=50%,layers=[c]}},{CUT},refit",
    f"squeeze_excite{{layers=[b]}},{CUT},reestimate_bn",
)  # fmt: skip

Case = tuple[secateur.Compiled, np.random.Generator]
Changed = tuple[Graph, Recipe]


def compiled(line: str) -> secateur.Compiled:
    """The network, made smaller by this policy; where rewrites alone meet the budget, a tighter one is given."""
    base = secateur.compile(network(), line, calibration=data() if line.split("slim")[1] else None)
    if base.recipe.weights:
        return base
    return secateur.compile(
        network(), line.replace("60%", "40%"), calibration=data() if line.split("slim")[1] else None
    )


def _floats(graph: Graph) -> list[str]:
    return [name for name, w in graph.weights.items() if w.dtype.kind == "f" and w.size > 1]


def _with(done: secateur.Compiled, **weights: Any) -> Changed:
    graph = done.graph
    return graph.rewrite(weights={**graph.weights, **weights.get("new", {})}), done.recipe


def random_weights(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """All weights drawn anew; variances stay positive."""
    return _with(done, new={n: _drawn(n, done.graph, rng) for n in _floats(done.graph)})


def random_layer(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """One weight drawn anew."""
    name = rng.choice(_floats(done.graph))
    return _with(done, new={name: _drawn(name, done.graph, rng)})


def _drawn(name: str, graph: Graph, rng: np.random.Generator) -> Any:
    w = graph.weights[name]
    return (rng.uniform(0.5, 2, w.shape) if name.endswith(".v") else rng.standard_normal(w.shape)).astype(w.dtype)


def one_word_in_the_recipe(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """Random weights, and a recipe that says that refit made them."""
    graph, recipe = random_weights(done, rng)
    steps = Steps(recipe.steps.before, (*recipe.steps.after, Refit()))
    return graph, dataclasses.replace(recipe, steps=steps)


def digests_without_a_pass(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """Random batch norm statistics with their digests in the recipe, which lists no pass that may change them."""
    mean = next((n for n in done.graph.weights if n == "n.bias"), _floats(done.graph)[0])
    graph, recipe = _with(done, new={mean: _drawn(mean, done.graph, rng)})
    stated = {**recipe.digests, mean: digest(graph.weights[mean])}
    return graph, dataclasses.replace(recipe, steps=Steps(recipe.steps.before), digests=stated)


def other_training(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """The same network with other weights, cut by the same recipe."""
    graph = network()
    fresh = {n: _drawn(n, graph, rng) for n in graph.weights}
    try:
        return secateur.apply(done.recipe, graph.rewrite(weights=fresh)).graph, done.recipe
    except secateur.InputError:  # regroup finds other groups in other weights
        return random_weights(done, rng)


def another_network(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """A network of its own that takes and gives the same."""
    from secateur.ir import parse_graph, reinfer

    text = """graph other
  in  %x : f32[1, 3, 6, 6]
  %p = reduce_mean(%x) axes=[2,3] keepdims=False : f32[1, 3]
  %y = linear(%p, @w, @b) transposed=False : f32[1, 5]
  out %y
weights
  @w f32[5, 3]
  @b f32[5]
"""
    graph = parse_graph(text)
    drawn = {n: rng.standard_normal(w.shape).astype(np.float32) for n, w in graph.weights.items()}
    return reinfer(graph.rewrite(weights=drawn)), done.recipe


def swapped(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """Two weights of one shape change places; where there are none, two rows of one."""
    graph = done.graph
    names = _floats(graph)
    pairs = [
        (a, b) for i, a in enumerate(names) for b in names[i + 1 :] if graph.weights[a].shape == graph.weights[b].shape
    ]
    pairs = [(a, b) for a, b in pairs if not np.array_equal(graph.weights[a], graph.weights[b])]
    if pairs:
        a, b = pairs[rng.integers(len(pairs))]
        return _with(done, new={a: graph.weights[b], b: graph.weights[a]})
    return _with(done, new={names[0]: graph.weights[names[0]][::-1].copy()})


def index_in_the_file(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """The file keeps another channel than the recipe says."""
    return _other_cut(done, rng)[0], done.recipe


def index_in_the_recipe(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """The recipe keeps another channel than the file, in all its lists."""
    _, other = _other_cut(done, rng)
    return done.graph, dataclasses.replace(done.recipe, weights=other.weights, mixing=other.mixing)


def _other_cut(done: secateur.Compiled, rng: np.random.Generator) -> tuple[Graph, Recipe]:
    """The network cut with one kept unit dropped and a dropped one of the same cell kept."""
    coupled = Pipeline((Canonicalize(), Couple()))(rewritten(done.recipe, network()))
    coupling = coupled.note(Coupling)
    assert coupling is not None
    keep = mask_of(with_mask(done.recipe, coupled)).copy()
    for cell in rng.permutation(np.unique(coupling.cell)):
        units = np.flatnonzero(coupling.cell == cell)
        kept, gone = units[keep[units]], units[~keep[units]]
        if len(kept) and len(gone):
            keep[[kept[-1], gone[0]]] = [False, True]
            cut = slim(coupled, keep)
            found = cut.note(Recipe)
            assert found is not None
            return cut, found
    raise AssertionError("nothing was cut")


def off_by_little(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """One number of one weight, by a thousandth of the weight's largest."""
    name = rng.choice(_floats(done.graph))
    w = done.graph.weights[name].copy()
    w.reshape(-1)[rng.integers(w.size)] += np.abs(w).max() * 1e-3
    return _with(done, new={name: w})


def zeroed_bias(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """A bias at zero."""
    names = [n for n in done.graph.weights if n.endswith("bias") and done.graph.weights[n].any()]
    name = rng.choice(names)
    return _with(done, new={name: np.zeros_like(done.graph.weights[name])})


def without_relu(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """An activation is left out; not that of a gate, which is a constant 1 until it is trained."""
    graph = done.graph
    names = [n.name for n in graph.nodes if n.op == "relu" and n.name in ("r", "q")]
    name = rng.choice(names)
    nodes = [dataclasses.replace(n, op="identity") if n.name == name else n for n in graph.nodes]
    return graph.rewrite(nodes=nodes), done.recipe


def other_attribute(done: secateur.Compiled, rng: np.random.Generator) -> Changed:
    """The softmax runs along another axis."""
    graph = done.graph
    nodes = [n.with_attrs(axis=2) if n.op == "softmax" else n for n in graph.nodes]
    return graph.rewrite(nodes=nodes), done.recipe


SABOTAGES: tuple[Callable[[secateur.Compiled, np.random.Generator], Changed], ...] = (
    random_weights, random_layer, one_word_in_the_recipe, digests_without_a_pass, other_training, another_network,
    swapped, index_in_the_file, index_in_the_recipe, off_by_little, zeroed_bias, without_relu, other_attribute,
)  # fmt: skip


def verdict(graph: Graph, recipe: Recipe, folder: Path) -> str:
    """passed, failed (with the reason) or refused, for the network as a file."""
    from secateur.save import save_onnx

    path = folder / "slim.onnx"
    save_onnx(graph, path)
    recipe.save(folder / "recipe.json")
    try:
        found = secateur.verify(network(), path, folder / "recipe.json")
    except secateur.InputError as error:
        return f"refused: {error}"
    return f"passed: {found.compared}" if found.passed else f"failed: {found.reason}"


def cases(seed: int, kinds: tuple[str, ...] = KINDS) -> Iterator[Row]:
    """One row for each network: the policy, what was changed, and the verdict."""
    with tempfile.TemporaryDirectory() as folder:
        for line in kinds:
            done = compiled(line)
            honest = verdict(done.graph, done.recipe, Path(folder))
            yield {"policy": line, "changed": "nothing", "verdict": honest}
            for change in SABOTAGES:
                rng = np.random.default_rng([seed, zlib.crc32(f"{line}{change.__name__}".encode())])
                graph, recipe = change(done, rng)
                yield {"policy": line, "changed": change.__name__, "verdict": verdict(graph, recipe, Path(folder))}


def main() -> None:
    """Verify all, and append a row with the counts and one for each network."""
    given = parser(__doc__, "verify_sabotage.jsonl").parse_args()
    rows = list(cases(given.seed))
    honest = [r for r in rows if r["changed"] == "nothing"]
    changed = [r for r in rows if r["changed"] != "nothing"]
    passed = [sum(r["verdict"].startswith("passed") for r in part) for part in (honest, changed)]
    summary = {
        "kind": "summary", "honest": len(honest), "honest_passed": passed[0],
        "changed": len(changed), "changed_passed": passed[1],
        **circumstances(given.seed),
    }  # fmt: skip
    append(given.output, [summary, *rows])
    for row in rows:
        if row["verdict"].startswith("passed") != (row["changed"] == "nothing"):
            print("WRONG", row)
    head = ("honest", "honest_passed", "changed", "changed_passed")
    print(table(head, [[summary[name] for name in head]]))


if __name__ == "__main__":
    main()
