"""Pipelines: verified after each pass; specs print and parse."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.ir import Graph, InputError, PassError
from secateur.passes import PASSES, Pipeline, parse_spec, print_spec
from secateur.passes.pipeline import Pass, Ran, number
from support.nets import chain


@dataclass(frozen=True)
class Everything:
    name: ClassVar[str] = "everything"
    whole: int = 1
    real: float = 0.5
    flag: bool = False
    text: str = "a"
    maybe: float | int | None = None
    either: int | str = "auto"
    many: tuple[str, ...] = ()


@dataclass(frozen=True)
class Breaks:
    name: ClassVar[str] = "breaks"

    def __call__(self, graph: Graph) -> Graph:
        return graph.rewrite(nodes=graph.nodes[:-1])


@dataclass(frozen=True)
class Needs:
    name: ClassVar[str] = "needs"

    def __call__(self, graph: Graph) -> Graph:
        import nothing_of_this_name  # noqa: F401

        return graph


@dataclass(frozen=True)
class Crashes:
    name: ClassVar[str] = "crashes"

    def __call__(self, graph: Graph) -> Graph:
        raise ZeroDivisionError("on purpose")


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=8)
REAL = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        Everything, whole=st.integers(), real=REAL, flag=st.booleans(), text=TEXT,
        maybe=st.none() | REAL | st.integers(), either=st.integers() | TEXT.filter(lambda t: not t.isdigit()),
        many=st.lists(TEXT, max_size=3).map(tuple),
    )
)  # fmt: skip
def test_specs_round_trip(step: Everything) -> None:
    table = {**PASSES, "everything": Everything}
    steps = (step, PASSES["l1"](), step)
    assert parse_spec(print_spec(steps), table) == steps  # type: ignore[arg-type]


def test_specs_read_as_written() -> None:
    text = "couple{protect=[head.*,fc]},l1,global{macs=50%,round_to=8},slim"
    steps = parse_spec(text, PASSES)
    assert print_spec(steps) == text
    assert dataclasses.asdict(steps[2])["macs"] == 0.5  # type: ignore[call-overload]
    assert print_spec(parse_spec(" uniform{ params = 1.5M } , slim ", PASSES)) == "uniform{params=1500000},slim"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("l3,slim", "no pass 'l3'.*did you mean l2, l1"),
        ("global{mac=50%}", "no option 'mac'.*did you mean macs"),
        ("global{macs=half}", "takes float or int or none"),
        ("global{macs=50%", "not closed"),
        ("global{macs}", "not an option"),
        ("l1,,slim", "missing between two commas"),
        (" ", "no pass is named"),
        ("slim{x=1}", "no options"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_spec(text, PASSES)


@pytest.mark.parametrize(
    ("text", "value"), [("50%", 0.5), ("120M", 120_000_000), ("8", 8), ("0.5", 0.5), ("1.5k", 1500), ("x8", "x8")]
)
def test_numbers(text: str, value: object) -> None:
    assert number(text) == value
    assert type(number(text)) is type(value)


def test_observers_see_each_pass() -> None:
    seen: list[Ran] = []
    passes = parse_spec("canonicalize,couple,cost", PASSES)
    Pipeline(passes, (seen.append,))(chain())
    assert [ran.step.name for ran in seen] == ["canonicalize", "couple", "cost"]
    assert all(ran.seconds >= 0 for ran in seen)
    assert seen[1].before is seen[0].after


@pytest.mark.parametrize(("step", "message"), [(Breaks(), "breaks broke the graph"), (Crashes(), "crashes failed")])
def test_a_broken_pass_is_named_with_what_ran_before(step: Pass, message: str) -> None:
    with pytest.raises(PassError, match=rf"{message} \(after couple\): "):
        Pipeline((*parse_spec("couple", PASSES), step))(chain())
    with pytest.raises(PassError, match=f"{message}: "):
        Pipeline((step,))(chain())


def test_a_package_that_is_missing_is_named_with_the_remedy() -> None:
    with pytest.raises(PassError, match=r"needs failed: ModuleNotFoundError.*; pip install nothing_of_this_name"):
        Pipeline((Needs(),))(chain())


def test_every_pass_has_a_docstring_and_the_name_of_its_entry() -> None:
    for name, made in PASSES.items():
        assert made.name == name
        assert made.__doc__
        assert isinstance(made(), Pass)
