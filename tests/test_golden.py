"""Golden texts: each file under golden/ holds a spec, the graph before, ``---`` and the graph after.

``pytest --update-golden`` rewrites what comes after the dashes; read the diff.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from secateur.ir import parse_graph, verify
from secateur.passes import PASSES, REWRITES
from secateur.passes.pipeline import Pipeline, parse_spec

FILES = sorted((Path(__file__).parent / "golden").rglob("*.ir"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_golden(path: Path, golden: Callable[[str, str], None]) -> None:
    spec, _, rest = path.read_text(encoding="utf-8").partition("\n")
    before = rest.partition("---\n")[0]
    graph = verify(parse_graph(before))
    after = Pipeline(parse_spec(spec, PASSES))(graph)
    golden(f"{path.parent.name}/{path.name}", f"{spec}\n{before}---\n{after}")


def test_there_are_golden_texts_for_every_rewrite() -> None:
    assert {p.parent.name for p in FILES} >= {"couple", "slim", *REWRITES}
