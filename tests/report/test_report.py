"""The report: the contract's fields, and forms that people read."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

import secateur
from secateur.passes.allocate import knapsack
from secateur.passes.allocate.solver import choice
from secateur.report.report import Report
from secateur.report.text import headline
from support.nets import chain, residual

FIELDS = {
    "schema", "secateur", "model", "policy", "seed", "versions", "before", "after", "budget", "reading", "written",
    "verification", "groups",
    "layers", "latency_ms", "quality", "passes",
}  # fmt: skip


@pytest.fixture(scope="module")
def report() -> Report:
    return secateur.compile(residual(), "l1", macs=0.5, round_to=1).report


def test_json_has_the_fields_of_the_contract(report: Report) -> None:
    found = json.loads(report.to_json())
    assert set(found) - {"remarks", "rewrites"} == FIELDS
    assert found["schema"] == 1
    assert set(found["before"]) == set(found["after"]) == {"macs", "params", "bytes", "nodes"}
    assert found["budget"] == {
        "kind": "macs",
        "target": 0.5,
        "achieved": found["after"]["macs"] / found["before"]["macs"],
        "gap": None,
    }
    assert set(found["verification"]) == {"law", "passed", "max_rel_err", "inputs", "reference"}
    assert set(found["groups"][0]) == {"id", "size", "kept", "slots", "why", "frozen"}
    assert set(found["layers"][0]) == {"name", "op", "macs", "params", "widths", "state", "reason"}
    assert [p["spec"] for p in found["passes"]] == [
        "canonicalize",
        "couple",
        "l1",
        "global{macs=50%,round_to=1}",
        "slim",
    ]


def test_layers_add_up(report: Report) -> None:
    rows = report.layers
    assert [row["name"] for row in rows] == ["a", "b", "c", "g", "y"]
    assert sum(row["macs"][0] for row in rows) == report.before["macs"]
    assert report.after is not None
    assert sum(row["macs"][1] for row in rows) == report.after["macs"]
    for row in rows:
        assert (row["state"] == "pruned") == (row["widths"][0] != row["widths"][1])


def test_groups_count_what_stays(report: Report) -> None:
    widths = {row["name"]: row["widths"][1][1] for row in report.layers}
    kept = {slot: group["kept"] for group in report.groups for slot in group["slots"]}
    assert kept["b.w[0]"] == widths["b"]


def test_states_have_reasons() -> None:
    rows = {row["name"]: row for row in secateur.compile(chain(), "slimming", macs=0.8).report.layers}
    assert rows["c1"]["state"] == "pruned"
    assert rows["fc"]["state"] == "frozen"
    assert rows["fc"]["reason"] == "graph output"
    kept = secateur.compile(chain(), "l1", macs=1.0).report.layers
    assert [(row["state"], row["reason"]) for row in kept] == [
        ("kept", "not chosen"), ("kept", "not chosen"), ("frozen", "graph output"),
    ]  # fmt: skip
    unscored = {row["name"]: row for row in secateur.compile(chain(), "slimming", macs=1.0).report.layers}
    assert unscored["c2"]["reason"] == "'slimming' has no score for it: no BatchNorm with a scale follows it"


def test_inspection_has_no_after() -> None:
    found = json.loads(secateur.inspect(chain()).to_json())
    assert found["after"] is None
    assert found["verification"] is None
    assert all(row["macs"][1] is None and row["widths"][1] is None for row in found["layers"])
    assert all(group["kept"] == group["size"] for group in found["groups"])


def test_the_table_fits_80_columns_and_has_no_colour(report: Report) -> None:
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in str(report)
    assert any(line.startswith("law: holds (exact)") for line in lines)
    for name in ("a", "b", "c", "g", "y"):
        assert any(line.split()[0] == name for line in lines if line.strip())


class Page(HTMLParser):
    """Collects text and every address that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_escapes(tmp_path: Path) -> None:
    graph = chain()
    named = type(graph)("<script>alert(1)</script>", graph.inputs, graph.nodes, graph.outputs, graph.weights)
    secateur.compile(named).report.to_html(tmp_path / "r.html")
    page = Page()
    text = (tmp_path / "r.html").read_text()
    page.feed(text)
    assert "<script" not in text
    assert "<script>alert(1)</script>" in page.text
    assert page.fetched == []
    assert "graph output" in page.text
    assert "prefers-color-scheme: dark" in text
    assert text.count("<div class=wide><table>") == text.count("<table>")  # wide tables scroll, not the page


@pytest.mark.parametrize(("gap", "said"), [(0.0, False), (1e-4, False), (0.005, True)])
def test_an_unproven_knapsack_is_told(gap: float, said: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    solved = knapsack.answer
    monkeypatch.setattr(knapsack, "answer", lambda problem, within: choice.Answer(solved(problem, within).chosen, gap))
    report = secateur.compile(residual(), "l1,knapsack{macs=50%}").report
    assert report.budget is not None
    assert report.budget["gap"] == gap
    assert any("0.50% less" in r for r in report.remarks) == said
    assert ("proven" in str(report)) == said


def test_in_a_notebook_the_text_is_the_text(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = str(report)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert str(report) == whole


def test_notebooks_show_lines_and_a_page_in_a_frame(report: Report) -> None:
    assert repr(report) == "<Report: residual, 617k -> 306k MACs, 9.65k -> 4.79k parameters>"
    assert repr(chain()) == "<Graph 'chain': x: f32[1, 3, 8, 8] -> fc, 7 nodes, 8 weights>"
    slim = secateur.compile(chain())
    assert repr(slim) == f"<Compiled: {headline(slim.report)}>"
    assert slim._repr_html_() == slim.report._repr_html_()
    shown = report._repr_html_()
    page = Page()
    page.feed(shown)
    assert page.text == ""  # all of it is in the frame, and its style with it
    assert shown.startswith("<iframe srcdoc=")
    assert "&lt;h2&gt;Layers&lt;/h2&gt;" in shown
