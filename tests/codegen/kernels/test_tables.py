"""Tables that belong together: what fusion counts on, templates write; what one names, another has a row for."""

from __future__ import annotations

import pytest

pytest.importorskip("tvm", reason="code generation needs apache-tvm")

from secateur.codegen.emit import maths
from secateur.codegen.kernels.families import FAMILIES
from secateur.codegen.kernels.post_ops.plan import UNBOUNDED
from secateur.codegen.kernels.recurrent.plan import GATES, STATES
from secateur.codegen.kernels.rows import plan as rows
from secateur.codegen.kernels.rows.template import _Rows
from secateur.codegen.plan.axes import LAST, RULES, SAME, SECOND
from secateur.codegen.plan.family import heads
from secateur.codegen.plan.fusion import ELEMENTWISE
from secateur.codegen.plan.moves import MOVE
from secateur.codegen.plan.post_ops import FUSABLE_BINARY, FUSABLE_UNARY
from secateur.ir.ops import ATTRS, BINARY, UNARY

HEADS = heads(FAMILIES)
NODES = {op for family in FAMILIES for op in family.nodes}


def test_every_fusable_operator_has_its_maths() -> None:
    assert set(maths.UNARY) == FUSABLE_UNARY
    assert set(maths.BINARY) == FUSABLE_BINARY | {"prelu", "keep"}  # a head by itself, and what silences lanes


def test_fusable_operators_are_of_their_kind() -> None:
    assert set(UNARY) >= FUSABLE_UNARY and set(BINARY) >= FUSABLE_BINARY
    assert UNBOUNDED <= FUSABLE_UNARY | FUSABLE_BINARY


def test_every_elementwise_operator_has_a_family() -> None:
    (family,) = (f for f in FAMILIES if f.name == "elementwise")
    assert set(family.heads) == ELEMENTWISE == FUSABLE_UNARY | FUSABLE_BINARY | {"batch_norm", "prelu"}


def test_no_operator_is_a_head_a_node_and_a_copy_at_once() -> None:
    assert not set(HEADS) & NODES
    assert set(HEADS) & set(MOVE) == {"resize"}  # linear is computed, nearest is copied


def test_tables_name_operators_that_there_are() -> None:
    for table in (HEADS, NODES, MOVE, SECOND, LAST, SAME, RULES, ELEMENTWISE):
        assert set(table) <= set(ATTRS)


def test_rows_are_written_for_every_operator_that_is_planned_as_rows() -> None:
    assert all(callable(getattr(_Rows, f"_{op}", None)) for op in rows.HEADS)


def test_recurrent_layers_have_gates_and_states() -> None:
    assert set(GATES) == set(STATES) == NODES
