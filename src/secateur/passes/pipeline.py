"""Pipelines: passes in a row, verified after each, and the one-line spec that names them.

``l1,global{macs=50%,round_to=8},slim`` is a list of passes with options in braces. Options are the
fields of the pass's dataclass; those at their default are not printed. Parsing and printing are inverse.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from secateur.ir import Error, Graph, InputError, PassError, VerifyError, verify
from secateur.ir.near import did_you_mean


@runtime_checkable
class Pass(Protocol):
    """Graph in, graph out. A frozen dataclass whose fields are the options."""

    name: ClassVar[str]

    def __call__(self, graph: Graph) -> Graph: ...


def keeps_state(kind: type[Pass]) -> bool:
    """Does such a pass, which takes long, keep its state in ``Context.checkpoints``? Its ``keeps_state`` says so."""
    return getattr(kind, "keeps_state", False)


def reorders(kind: type[Pass]) -> bool:
    """May such a pass put the channels of a value that keeps its name into another order? Its ``reorders`` says so."""
    return getattr(kind, "reorders", False)


P = TypeVar("P", bound=Pass)


@dataclass(frozen=True)
class Ran:
    """One pass that ran, for observers: its result and how long it took."""

    step: Pass
    before: Graph
    after: Graph
    seconds: float


LARGEST = 1 << 53  # of the numbers that options take: beyond it, floats skip integers
LONGEST = 40  # digits of a number
Observer = Callable[[Ran], None]
Announce = Callable[[Pass], None]  # told of each pass before it runs


@dataclass(frozen=True)
class Pipeline:
    """Run passes in order, each announced; after each, verify the result and report to the observers."""

    passes: tuple[Pass, ...]
    observers: tuple[Observer, ...] = ()
    announce: Announce | None = None

    def __call__(self, graph: Graph) -> Graph:
        """Raises the pass's own error for a user's mistake, and PassError where a pass breaks the graph."""
        interface = graph
        sound: Graph | None = None  # the last graph verified: one that differs by its notes alone is as sound
        done: list[str] = []
        for step in self.passes:
            if self.announce is not None:
                self.announce(step)
            start = time.perf_counter()
            try:
                after = step(graph)
                if after is not graph and not (sound is not None and _same_network(sound, after)):
                    sound = verify(after, interface=interface)
            except VerifyError as error:
                raise PassError(f"{step.name} broke the graph{_after(done)}: {error}") from error
            except Error:
                raise
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                raise PassError(f"{step.name} failed{_after(done)}: {what}{_remedy(error)}") from error
            ran = Ran(step, graph, after, time.perf_counter() - start)
            for observer in self.observers:
                observer(ran)
            done.append(step.name)
            graph = after
        return graph

    def __str__(self) -> str:
        return print_spec(self.passes)


def _same_network(one: Graph, other: Graph) -> bool:
    """Do they hold the very same nodes and weights?"""
    parts = ("inputs", "nodes", "outputs", "weights")
    return all(getattr(one, part) is getattr(other, part) for part in parts)


def _after(done: Sequence[str]) -> str:
    return f" (after {', '.join(done)})" if done else ""


def _remedy(error: Exception) -> str:
    """What to do about it, where that is known."""
    return f"; pip install {error.name}" if isinstance(error, ModuleNotFoundError) and error.name else ""


def print_spec(passes: Sequence[Pass]) -> str:
    """The spec line of these passes; options at their default are left out."""
    return ",".join(print_pass(step) for step in passes)


def print_pass(step: Pass) -> str:
    """One pass: its name, and in braces the options that are not at their default (fields without repr are none)."""
    parts = []
    for item in options_of(step):
        value = getattr(step, item.name)
        if value != item.default or type(value) is not type(item.default):
            parts.append(f"{item.name}={print_value(value)}")
    return f"{step.name}{{{','.join(parts)}}}" if parts else step.name


def options_of(step: Pass | type[Pass]) -> tuple[dataclasses.Field[Any], ...]:
    """The fields that are options: all of a dataclass but those without repr; none of another class."""
    found: object = step
    return tuple(item for item in dataclasses.fields(found) if item.repr) if dataclasses.is_dataclass(found) else ()


def with_options(step: P, **options: object) -> P:
    """The same pass with these options, which it has."""
    return typing.cast(P, dataclasses.replace(typing.cast(Any, step), **options))


def parse_spec(text: str, table: Mapping[str, type[P]]) -> tuple[P, ...]:
    """Read a spec line with the passes of ``table``. Raises InputError that names the part at fault."""
    if not text.strip():
        raise InputError("no pass is named; `secateur passes` lists them, and commas stand between several")
    steps: list[P] = []
    for part in split_outside(text, ","):
        if not part.strip():
            raise InputError(f"spec '{text}': a pass is missing between two commas; write 'l1,global{{macs=50%}},slim'")
        steps.append(parse_pass(part.strip(), table))
    return tuple(steps)


def parse_pass(text: str, table: Mapping[str, type[P]]) -> P:
    """Read one pass such as ``global{macs=50%}``."""
    name, brace, rest = text.partition("{")
    if brace and not rest.endswith("}"):
        raise InputError(f"spec '{text}': the brace after '{name}' is not closed; add '}}'")
    options: dict[str, str] = {}
    for part in split_outside(rest[:-1], ",") if rest[:-1].strip() else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"spec '{text}': '{part.strip()}' is not an option; write name=value")
        if key.strip() in options:
            raise InputError(f"spec '{text}': option '{key.strip()}' is given twice; leave one out")
        options[key.strip()] = value.strip()
    return build(name.strip(), options, table)


def build(name: str, options: Mapping[str, object], table: Mapping[str, type[P]]) -> P:
    """Make the pass ``name`` from options, given as text or as values. Raises InputError."""
    made = table.get(name)
    if made is None:
        raise InputError(f"there is no pass '{name}'{did_you_mean(name, table)}; `secateur passes` lists them")
    hints = typing.get_type_hints(made)
    fields = [item.name for item in dataclasses.fields(typing.cast(Any, made))]
    values: dict[str, object] = {}
    for key, value in options.items():
        if key not in fields:
            known = f"its options are {', '.join(fields)}" if fields else "it has no options"
            raise InputError(f"pass '{name}' has no option '{key}'{did_you_mean(key, fields)}; {known}")
        values[key] = convert(value, hints[key], f"option '{key}' of pass '{name}'")
    return made(**values)


def check_numbers(step: P) -> P:
    """The pass itself. Raises InputError for an option below 0 or beyond 2^53, which no pass of ours takes."""
    for item in options_of(step):
        value = getattr(step, item.name)
        if isinstance(value, int | float) and not 0 <= value <= LARGEST:
            shown = str(value)[:LONGEST]
            raise InputError(f"option '{item.name}' of pass '{step.name}' is {shown}; it takes numbers from 0 to 2^53")
    return step


def print_value(value: object) -> str:
    """An option's value: shares as per cent, tuples in brackets, odd strings in quotes."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        percent = f"{value * 100:g}%"
        return percent if 0 < value <= 1 and float(percent[:-1]) / 100 == value else repr(value)
    if isinstance(value, tuple):
        return "[" + ",".join(print_value(v) for v in value) + "]"
    if isinstance(value, str) and (not re.fullmatch(r"[\w.*?/:+-]+", value) or _reads_otherwise(value)):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _reads_otherwise(text: str) -> bool:
    return not isinstance(_literal(text), str)


SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _literal(text: str) -> object:
    """What the text means on its own: none, bool, quoted string, number with %, K, M or G, tuple, string."""
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if text.startswith("[") and text.endswith("]"):
        return tuple(_literal(part.strip()) for part in split_outside(text[1:-1], ",") if part.strip())
    return number(text)


def number(text: str) -> int | float | str:
    """``50%`` -> 0.5, ``120M`` -> 120000000, ``2m`` -> 120.0 (seconds), ``8`` -> 8; else the text itself."""
    found = re.fullmatch(r"([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|[+-]?\.\d+)\s*([%kKMGTsmh]?)", text)
    if found is None:
        return text
    digits, unit = found.groups()
    if len(digits) > LONGEST or not math.isfinite(float(digits)):
        return text
    if unit == "%":
        return float(digits) / 100
    if unit in SECONDS:
        return float(digits) * SECONDS[unit]
    if unit:
        return round(float(digits) * {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[unit])
    return int(digits) if re.fullmatch(r"[+-]?\d+", digits) else float(digits)


def convert(value: object, hint: object, where: str) -> object:
    """Give the value, or what text means, the type that the field declares. Raises InputError."""
    return _typed(_literal(value) if isinstance(value, str) else value, hint, where)


def _typed(value: object, hint: object, where: str) -> object:
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is {value}; it takes a finite number")
    wanted = list(_members(hint))
    if tuple in wanted and value is not None:
        items = value if isinstance(value, tuple) else (value,)
        return tuple(_typed(item, _element(hint), where) for item in items)
    if type(value) in wanted:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and float in wanted:
        return float(value)
    if str in wanted and not isinstance(value, tuple) and value is not None:
        return value if isinstance(value, str) else print_value(value)
    names = " or ".join("none" if w is type(None) else w.__name__ for w in wanted)
    raise InputError(f"{where} is {print_value(value)!r}; it takes {names}")


def _element(hint: object) -> object:
    """What a tuple of this hint holds."""
    inner = (h for h in (hint, *typing.get_args(hint)) if typing.get_origin(h) is tuple)
    return next((typing.get_args(h)[0] for h in inner), str)


def _members(hint: object) -> Iterator[type]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for member in typing.get_args(hint):
            yield from _members(member)
    elif origin is typing.Literal:
        yield from dict.fromkeys(type(v) for v in typing.get_args(hint))
    else:
        yield typing.cast(type, origin or hint)


def split_outside(text: str, mark: str) -> list[str]:
    """Split at ``mark`` outside braces, brackets and quotes. Raises InputError for an unclosed one."""
    parts, start, depth, quoted, index = [], 0, 0, False, 0
    while index < len(text):
        char = text[index]
        if quoted:
            index += char == "\\"  # the next character stands for itself
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
        elif char == mark and depth == 0:
            parts.append(text[start:index])
            start = index + 1
        index += 1
    if depth or quoted:
        raise InputError(f"spec '{text}': a brace, bracket or quote is not closed")
    return [*parts, text[start:]]
