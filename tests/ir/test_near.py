"""Did you mean: one function for everything that is misspelt."""

import re
from pathlib import Path

import secateur
from secateur.ir.near import did_you_mean, near


def test_the_nearest_come_first_and_at_most_three() -> None:
    assert near("mac", ("params", "macs", "bytes")) == ["macs"]
    assert near("l3", ("l1", "l2", "l4", "l5", "taylor"))[0] in ("l1", "l2", "l4", "l5")
    assert len(near("l3", ("l1", "l2", "l4", "l5", "taylor"))) == 3
    assert near("nosuch", ("subspace", "knapsack", "scsp")) == []


def test_globs_dashes_and_capitals_do_not_count() -> None:
    assert near("FCC*", ("fc", "conv1")) == ["fc"]
    assert near("--shap", ("--shape", "--json", "--seed")) == ["--shape"]


def test_synonyms_come_alone() -> None:
    assert did_you_mean("prune", ("compile", "run", "tune"), {"prune": "compile"}) == " (did you mean compile?)"
    assert did_you_mean("xyzzy", ("compile", "run")) == ""


def test_nobody_else_compares_names() -> None:
    source = Path(secateur.__file__).parent
    found = [p for p in source.rglob("*.py") if re.search(r"difflib|did you mean", p.read_text(encoding="utf-8"))]
    assert [p.relative_to(source).as_posix() for p in found] == ["ir/near.py"]
