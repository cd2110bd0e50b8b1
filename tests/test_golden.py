"""Golden texts: each file under golden/ holds a spec, the graph before, ``---`` and the graph after.

Larger weights have no values in the text, which pins the structure alone; the file of the same name that ends in .npz
holds values for them before and what the pass makes of them. ``pytest --update-golden`` rewrites what comes after the
dashes and the values; read the diff.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from secateur.ir import Array, Graph, parse_graph, verify
from secateur.passes import PASSES, REWRITES
from secateur.passes.pipeline import Pipeline, parse_spec

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.rglob("*.ir"))


def ident(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_golden(path: Path, golden: Callable[[str, str], None]) -> None:
    spec, _, rest = path.read_text(encoding="utf-8").partition("\n")
    before = rest.partition("---\n")[0]
    graph = verify(parse_graph(before))
    after = Pipeline(parse_spec(spec, PASSES))(graph)
    golden(f"{path.parent.name}/{path.name}", f"{spec}\n{before}---\n{after}")


@pytest.mark.parametrize("path", [p for p in FILES if p.with_suffix(".npz").exists()], ids=ident)
def test_golden_values(path: Path, request: pytest.FixtureRequest) -> None:
    spec, before = start(path)
    beside = path.with_suffix(".npz")
    update = request.config.getoption("--update-golden")
    drawn = {name: draw(name, before.weights[name]) for name in valueless(before)}
    given = drawn if update else part_of(beside, "before")
    assert set(given) == set(drawn)
    after = Pipeline(parse_spec(spec, PASSES))(filled(before, given))
    changed = {name: w for name, w in after.weights.items() if w.dtype.kind == "f" and w is not given.get(name)}
    if update:
        parts = {"before": given, "after": changed}
        np.savez_compressed(beside, **{f"{part}/{n}": w for part, table in parts.items() for n, w in table.items()})
    assert_weights(changed, part_of(beside, "after"))


def test_every_golden_text_has_the_values_that_it_lacks() -> None:
    for path in FILES:
        assert path.with_suffix(".npz").exists() == bool(valueless(start(path)[1])), path


@pytest.mark.parametrize("name", ["fold_bn", "grouped"])
def test_a_wrong_number_fails(name: str) -> None:
    known = part_of(GOLDEN / name / "residual.npz", "after")
    weight = next(n for n in known if known[n].size > 16)
    wrong = known[weight].copy()
    wrong.flat[3] *= 1.01
    with pytest.raises(AssertionError, match=weight):
        assert_weights({**known, weight: wrong}, known)
    with pytest.raises(AssertionError):
        assert_weights({n: w for n, w in known.items() if n != weight}, known)


def start(path: Path) -> tuple[str, Graph]:
    """The spec and the graph before it."""
    spec, _, rest = path.read_text(encoding="utf-8").partition("\n")
    return spec, verify(parse_graph(rest.partition("---\n")[0]))


def valueless(graph: Graph) -> list[str]:
    """The weights that the text gives no values: they come back as zeros that take no memory."""
    return [n for n, w in graph.weights.items() if w.size > 1 and not any(w.strides) and w.dtype.kind == "f"]


def draw(name: str, like: Array) -> Array:
    """Numbers for a weight; variances stay above 0."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(like.shape)
    found: Array = (np.abs(drawn) + 0.5 if "var" in name else drawn).astype(like.dtype)
    return found


def filled(graph: Graph, values: Mapping[str, Array]) -> Graph:
    return dataclasses.replace(graph, weights={**graph.weights, **values})


def part_of(path: Path, part: str) -> dict[str, Array]:
    with np.load(path) as file:
        return {name.partition("/")[2]: file[name] for name in file.files if name.startswith(f"{part}/")}


def assert_weights(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    assert set(found) == set(wanted)
    for name, weight in wanted.items():
        np.testing.assert_allclose(found[name], weight, rtol=1e-4, atol=1e-5, err_msg=name)


def test_there_are_golden_texts_for_every_rewrite() -> None:
    assert {p.parent.name for p in FILES} >= {"couple", "slim", *REWRITES}
