"""The verifier, by sabotage: break each rule once and match the message."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from secateur.ir import Graph, InputError, Node, Value, VerifyError, parse_graph, print_graph, prune_dead, verify
from secateur.ir.graph import Sym

TEXT = """graph small
  in  %x : f32[N:1, 3, 8, 8]
  %c = conv(%x, @c.w, @c.b) dilation=[1,1] groups=1 pad=[1,1,1,1] stride=[1,1] : f32[N:1, 4, 8, 8]
  %r = relu(%c) : f32[N:1, 4, 8, 8]
  %a, %b = split(%r) axis=1 sizes=[1,3] : f32[N:1, 1, 8, 8], f32[N:1, 3, 8, 8]
  %y = concat(%b, %a) axis=1 : f32[N:1, 4, 8, 8]
  out %y
weights
  @c.b f32[4] = [0.5, -1.0, 0.0, 2.0]
  @c.w f32[4, 3, 3, 3]
"""


@pytest.fixture
def small() -> Graph:
    return parse_graph(TEXT)


def change(graph: Graph, index: int, edit: Callable[[Node], Node]) -> Graph:
    nodes = [edit(n) if i == index else n for i, n in enumerate(graph.nodes)]
    return graph.rewrite(nodes=nodes)


def test_a_sound_graph_passes_and_prints_as_it_was_read(small: Graph) -> None:
    assert verify(small) is small
    assert print_graph(small) == TEXT
    assert small.weights["c.b"].tolist() == [0.5, -1.0, 0.0, 2.0]
    assert isinstance(small.values["c"].shape[0], Sym)


SABOTAGE: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "used before defined": (
        lambda g: g.rewrite(nodes=[g.nodes[1], g.nodes[0], *g.nodes[2:]]),
        "%c is used before it is defined",
    ),
    "defined twice": (lambda g: g.rewrite(nodes=[*g.nodes, g.nodes[1]]), "%r is defined twice"),
    "input defined twice": (lambda g: g.rewrite(inputs=[*g.inputs, *g.inputs]), "input %x is defined twice"),
    "stale shape": (
        lambda g: change(g, 1, lambda n: dataclasses.replace(n, outputs=(Value("r", (1, 5, 8, 8)),))),
        r"recorded as f32\[1, 5, 8, 8\], recomputes to f32\[N:1, 4, 8, 8\]",
    ),
    "stale type": (
        lambda g: change(g, 1, lambda n: dataclasses.replace(n, outputs=(Value("r", (1, 4, 8, 8), "f16"),))),
        "recorded as f16",
    ),
    "weight missing": (lambda g: g.rewrite(weights={}), "@?c.w is used before it is defined"),
    "weight that does not fit": (
        lambda g: g.rewrite(weights={**g.weights, "c.w": np.zeros((4, 2, 3, 3), np.float32)}),
        "groups=1 of 2 channels do not make the input's 3",
    ),
    "bias that does not fit": (
        lambda g: g.rewrite(weights={**g.weights, "c.b": np.zeros(5, np.float32)}),
        "input 2 has shape",
    ),
    "groups that do not divide": (lambda g: change(g, 0, lambda n: n.with_attrs(groups=3)), "groups=3"),
    "split that does not sum": (
        lambda g: change(g, 2, lambda n: n.with_attrs(sizes=(2, 3))),
        "do not sum to 4",
    ),
    "unknown operator": (lambda g: change(g, 1, lambda n: dataclasses.replace(n, op="frobnicate")), "unknown operator"),
    "unknown attribute": (lambda g: change(g, 1, lambda n: n.with_attrs(alpha=1)), "unknown"),
    "missing attribute": (lambda g: change(g, 3, lambda n: dataclasses.replace(n, attrs={})), "missing"),
    "no such output": (lambda g: g.rewrite(outputs=["z"]), "output %z is not defined"),
    "too few outputs": (
        lambda g: change(g, 2, lambda n: dataclasses.replace(n, outputs=n.outputs[:1])),
        "gives 2 outputs, 1 are named",
    ),
}


@pytest.mark.parametrize("kind", SABOTAGE)
def test_sabotage_is_noticed(small: Graph, kind: str) -> None:
    breaks, message = SABOTAGE[kind]
    with pytest.raises(VerifyError, match=message):
        verify(breaks(small))


def test_the_message_shows_the_ir_around_the_culprit(small: Graph) -> None:
    broken = change(small, 1, lambda n: dataclasses.replace(n, outputs=(Value("r", (1, 5, 8, 8)),)))
    with pytest.raises(VerifyError) as caught:
        verify(broken)
    text = str(caught.value)
    assert "> %r = relu(%c)" in text
    assert "%c = conv" in text and "^^^" in text


def test_a_changed_interface_is_noticed(small: Graph) -> None:
    other = small.rewrite(inputs=[Value("z", (1, 3, 8, 8))])
    renamed = other.rewrite(nodes=[dataclasses.replace(small.nodes[0], inputs=("z", "c.w", "c.b")), *small.nodes[1:]])
    with pytest.raises(VerifyError, match="inputs changed"):
        verify(renamed, interface=small)
    with pytest.raises(VerifyError, match="output %b changed"):
        verify(small.rewrite(outputs=["b"]), interface=small)


def test_dead_nodes_and_weights_go(small: Graph) -> None:
    extra = small.rewrite(
        nodes=[*small.nodes, Node("relu", ("y",), (Value("dead", (1, 4, 8, 8)),), {})],
        weights={**small.weights, "unused": np.zeros(3, np.float32)},
    )
    cleaned = prune_dead(extra)
    assert "dead" not in cleaned.values and "unused" not in cleaned.weights
    assert prune_dead(small) is small


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("  %q = relu %c : f32[1]", "line 2"),
        ("  %q = relu(%c) alpha=[1, : f32[1]", "line 2"),
        ("  in  %x f32[1]", "line 2"),
    ],
)
def test_unreadable_text_names_the_line(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_graph(f"graph g\n{line}\n")


def test_notes_are_dropped_by_a_rewrite_unless_kept(small: Graph) -> None:
    @dataclasses.dataclass(frozen=True)
    class Note:
        text: str

    noted = small.with_note(Note("x"))
    assert noted.note(Note) == Note("x")
    assert noted.rewrite().note(Note) is None
    assert noted.rewrite(keep=[Note]).note(Note) == Note("x")
