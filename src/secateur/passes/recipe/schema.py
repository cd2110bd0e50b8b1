"""The schema of a recipe file: its structure, and what must hold of its numbers before any network is at hand.

Everything that can be said of a recipe from the file alone is checked here and nowhere else: kinds, ranges, order, and
that each rewrite is one. What needs the network (names, shapes, completeness) is checked by ``mask.with_mask``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar, cast

import msgspec

from secateur.ir import InputError
from secateur.passes.pipeline import check_numbers, parse_spec
from secateur.passes.tables import AFTER, BEFORE_CUT

from .recipe import CUT, REORDER, SCHEMA, Indices, Kept, Mixed, Recipe, Steps, groups_of

S = TypeVar("S", bound=msgspec.Struct)
_Check = Callable[[Sequence[int], int, str], None]
MOST = 1 << 31  # indices along one axis, and sizes that a shape may have


class _Original(msgspec.Struct):
    sha256: str
    weights: dict[str, list[int]]


class _Mixing(msgspec.Struct, forbid_unknown_fields=True):
    node: str
    input: int
    axis: int
    kept: list[int]
    statistics: bool = False


class _Kept(msgspec.Struct):
    kept: dict[str, list[int | list[int]]]


class _Body(msgspec.Struct):
    """A recipe file that fits the schema; see ``Recipe`` for what the fields mean."""

    schema: int
    original: _Original
    weights: dict[str, msgspec.Raw]
    removed_nodes: list[str]
    mixing: list[msgspec.Raw]
    rewrites: list[str]
    digests: dict[str, str] = {}
    own: list[str] = []


def read(text: str, where: str) -> Recipe:
    """The recipe in this JSON text. Raises InputError that names the entry at fault."""
    try:
        body = msgspec.json.decode(text.encode("utf-8", "surrogatepass"), type=_Body)
        _schema(body.schema, where)
        weights = {
            name: _weight(name, _typed(entry, _Kept, where, f"weight '{name}'"), body, where)
            for name, entry in body.weights.items()
        }
        mixing = _mixing(body, where)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InputError(f"{where}: not a secateur recipe: {_plainly(error)}") from error
    _digest(body.original.sha256, where, "'sha256' of the original", empty=True)
    for name in body.own:
        if name not in weights:
            raise InputError(f"{where}: 'own' names weight '{name}', which is not listed under 'weights'")
    for name, digest in body.digests.items():
        _digest(digest, where, f"'digests' of weight '{name}'")
    return Recipe(
        body.original.sha256,
        {name: tuple(shape) for name, shape in body.original.weights.items()},
        weights,
        mixing,
        tuple(body.removed_nodes),
        read_steps(body.rewrites, where),
        body.digests,
        own=tuple(body.own),
    )


def read_steps(texts: Sequence[str], where: str = "recipe") -> Steps:
    """The passes before the cut and those after it. Raises InputError where one is none of its kind."""
    at = texts.index(CUT) if CUT in texts else -1
    try:
        return Steps(
            tuple(check_numbers(step) for text in texts[: max(at, 0)] for step in parse_spec(text, BEFORE_CUT)),
            tuple(check_numbers(step) for text in texts[at + 1 :] for step in parse_spec(text, AFTER)),
        )
    except InputError as error:
        kinds = f"rewrites and what repairs them, '{CUT}', and what follows it ({', '.join(AFTER)})"
        raise InputError(f"{where}: 'rewrites' lists {kinds} in this order: {error}") from error


def _mixing(body: _Body, where: str) -> tuple[Mixed, ...]:
    found: dict[tuple[str, int], Mixed] = {}
    for number, entry in enumerate(body.mixing):
        given = _typed(entry, _Mixing, where, f"entry {number} of 'mixing'")
        _rising(given.kept, MOST, f"{where}: 'kept' of node '{given.node}' under 'mixing'")
        if not 0 <= given.axis < 64 or not 0 <= given.input < MOST:
            raise InputError(f"{where}: node '{given.node}' under 'mixing' has axis {given.axis} and input "
                             f"{given.input}; both count from 0 up")  # fmt: skip
        if (given.node, given.input) in found:
            raise InputError(f"{where}: input {given.input} of node '{given.node}' stands twice under 'mixing'")
        found[given.node, given.input] = Mixed(given.node, given.input, given.axis, tuple(given.kept), given.statistics)
    return tuple(found.values())


def _weight(name: str, entry: _Kept, body: _Body, where: str) -> Kept:
    """{axis: kept indices, or one list per group}, checked against the shape that the file states."""
    shape = body.original.weights.get(name)
    if shape is None:
        raise InputError(f"{where}: weight '{name}' has no shape under 'original'; write the shape it had before")
    if not all(0 < size <= MOST for size in shape):
        raise InputError(f"{where}: weight '{name}' has shape {shape}; sizes are from 1 to {MOST}")
    found: Kept = {}
    check = _each_once if REORDER in body.rewrites else _rising
    for text, kept in entry.kept.items():
        place = f"{where}: weight '{name}', axis {text}"
        if not re.fullmatch(r"0|[1-9]\d?", text, re.ASCII) or int(text) >= len(shape):
            raise InputError(f"{place}: its shape is {shape}, so axes are 0 to {len(shape) - 1}")
        axis = int(text)
        found[axis] = _indices(kept, place)
        groups = groups_of(found[axis])
        if groups is None:
            check(cast("list[int]", found[axis]), shape[axis], place)
        else:
            _groups(groups, axis, shape, place, check)
    return found


def _indices(kept: list[int | list[int]], place: str) -> Indices:
    """Plain indices, or lists alone. Raises InputError where both stand side by side."""
    lists = [k for k in kept if isinstance(k, list)]
    if lists and len(lists) != len(kept):
        raise InputError(f"{place}: some entries are indices and some are lists; give indices, or one list per group")
    return lists or [k for k in kept if not isinstance(k, list)]


def _groups(lists: Sequence[list[int]], axis: int, shape: Sequence[int], place: str, check: _Check) -> None:
    """One list per group, of equal length, along axis 1 alone."""
    if axis != 1 or shape[0] % len(lists):
        raise InputError(f"{place}: {len(lists)} lists, one per group, fit axis 1 of a weight whose rows they divide; "
                         f"its shape is {list(shape)}")  # fmt: skip
    for row in lists:
        check(row, shape[1], place)
    if len({len(row) for row in lists}) != 1:
        raise InputError(f"{place}: groups keep {sorted({len(row) for row in lists})} channels; each must keep as many")


def _each_once(kept: Sequence[int], size: int, place: str) -> None:
    """Indices in range, each once, in any order, and at least one."""
    _rising(sorted(kept), size, place)


def _rising(kept: Sequence[int], size: int, place: str) -> None:
    """Indices in range, each once, in the order of the original, and at least one."""
    if not kept:
        raise InputError(f"{place}: nothing is kept; a network needs at least one channel there")
    if kept[0] < 0 or max(kept) >= size:
        wrong = kept[0] if kept[0] < 0 else max(kept)
        raise InputError(f"{place}: index {wrong} lies outside of 0 to {size - 1}")
    for one, two in pairwise(kept):
        if one >= two:
            raise InputError(f"{place}: index {two} follows {one}; indices rise, and each stands once")


def _typed(entry: msgspec.Raw, kind: type[S], where: str, what: str) -> S:
    """The entry as a struct of this kind. Raises InputError that names it."""
    try:
        return msgspec.json.decode(entry, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{where}: {what}: {_plainly(error)}") from error


def _digest(text: str, where: str, what: str, empty: bool = False) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", text) and not (empty and not text):
        raise InputError(f"{where}: {what} is {text[:80]!r}; a SHA-256 has 64 hexadecimal digits")


def _schema(found: int, where: str) -> None:
    if found != SCHEMA:
        raise InputError(f"{where}: recipe schema {found}, this version reads {SCHEMA}; use the secateur that wrote it")


def _plainly(error: BaseException) -> str:
    """What msgspec says, in a sentence's form."""
    return "it is nested too deeply" if isinstance(error, RecursionError) else json.dumps(str(error))[1:-1]
