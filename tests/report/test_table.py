"""The table of layers: a line each, names cut in the middle, reasons by marks, the heaviest of many."""

import io

import pytest
from rich.console import Console

import secateur
from secateur.ir.plain import shortened
from secateur.report.parts import Layer
from secateur.report.table import HEAVIEST, MANY, PLACES, Limit, Signs, layer_lines
from secateur.report.text import show, text
from support.nets import residual


def layer(name: str, macs: int = 1_000_000, state: str = "pruned", reason: str | None = None) -> Layer:
    return Layer(name, "conv2d", (macs, macs // 2), (100, 50), ((1024, 2048), (512, 1024)), state, reason)  # type: ignore[arg-type]


def lines(layers: list[Layer], width: int | None = None, limit: Limit = None, signs: Signs = Signs()) -> list[str]:  # noqa: B008
    return [line.plain for line in layer_lines(layers, width, limit, signs, PLACES)]


LONG = [layer(f"stage{i}.block{i}.a_long_name_for_a_part.{part}") for i in range(3) for part in ("conv1", "conv2")]


@pytest.mark.parametrize("width", [60, 61, 80, 120])
def test_a_line_a_layer_at_any_width(width: int) -> None:
    head, *rows = lines(LONG, width)
    assert head.split() == ["layer", "in→out", "now", "MACs", "now", "left"]
    assert len(rows) == len(LONG) and max(map(len, rows)) <= width
    assert len({row.split()[0] for row in rows}) == len(LONG)  # the ends tell them apart
    assert all(row.split()[1:] == ["1024→2048", "512→1024", "1M", "500k", "50%"] for row in rows)


def test_names_are_whole_where_there_is_room() -> None:
    assert all(row.name in line for row, line in zip(LONG, lines(LONG)[1:], strict=True))
    assert shortened("abc", 3, "…") == "abc"
    assert shortened("0123456789", 7, "…") == "01…6789"
    assert shortened("0123456789", 7, "..") == "0..6789"


def test_one_reason_has_a_sign_and_several_have_numbers() -> None:
    one = lines([layer("a"), layer("b", reason="inputs only"), layer("c", reason="inputs only")])
    assert [line.endswith("  #") for line in one[1:4]] == [False, True, True]
    assert one[4:] == ["# inputs only"]
    two = lines([layer("b", reason="inputs only"), layer("c", state="frozen", reason="graph output")], 60)
    assert [line[-3:] for line in two[1:3]] == ["  1", "  2"] and max(map(len, two)) <= 60
    assert two[3:] == ["1 inputs only", "2 frozen: graph output"]


def test_of_many_layers_the_heaviest_are_shown_and_the_rest_summed() -> None:
    many = [layer(f"l{i}", 1000 * (i % 100 + 1)) for i in range(400)]
    _, *rows, rest = lines(many)
    assert len(rows) == HEAVIEST
    assert [row.split()[0] for row in rows] == [f"l{i}" for i in range(400) if i % 100 > 95 and i != 396]
    total = sum(row.macs[0] for row in many) - sum(many[int(row.split()[0][1:])].macs[0] for row in rows)
    assert rest.startswith(f"and 385 lighter layers: {total / 1e6:.3g}M → {total / 2e6:.3g}M MACs (")
    assert len(lines(many, limit="all")) == 401
    assert len(lines(many, limit=1)) == 3
    assert len(lines(many[:MANY])) == MANY + 1 and len(lines(many[: MANY + 1])) == HEAVIEST + 2


def test_streams_without_arrows_get_ascii() -> None:
    assert Signs.of("utf-8") == Signs()
    assert Signs.of("ascii") == Signs.of(None) == Signs.of("no such encoding") == Signs("->", "..")
    assert all(line.isascii() for line in lines(LONG, 60, signs=Signs.of("latin-1")))


def test_names_that_a_terminal_would_obey_stay_on_their_line() -> None:
    assert lines([layer("a\x1b[2J\nb")])[1].startswith("a\\x1b[2J\\nb  ")


def test_a_layer_that_lost_inputs_only_does_not_contradict_itself() -> None:
    report = secateur.compile(residual(), "l1", macs=0.5, round_to=1).report
    assert "# inputs only, all outputs stay: graph output" in str(report).splitlines()


def test_a_file_gets_it_whole_and_a_terminal_in_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    report = secateur.compile(residual(), "l1", macs=0.5, round_to=1).report
    law = next(line for line in str(report).splitlines() if line.startswith("law: "))
    assert law.endswith("against the masked original")
    assert max(map(len, text(report, 60, groups=True).splitlines())) <= 60
    monkeypatch.setenv("COLUMNS", "70")
    stream = io.StringIO()
    show(report, Console(file=stream, force_terminal=True, color_system="truecolor"), groups=True)
    assert "\x1b[32m" in stream.getvalue()
    plain = Console(file=(wide := io.StringIO()), force_terminal=True, color_system=None)
    show(report, plain, groups=True)
    assert max(map(len, wide.getvalue().splitlines())) <= 70
    assert any(line.startswith("g1: 24: b.w[0] ") for line in text(report, groups=True).splitlines())
