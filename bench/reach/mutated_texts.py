"""How JSON and TOML are damaged: values of other kinds, keys and entries lost or doubled, text spoiled.

Everything is a function of the random numbers that it is given.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

NUMBERS = (0, 1, -1, 2, 7, 8, 12, 255, 1 << 31, 1 << 63, -(1 << 63), 10**30, 0.5, -0.5, 1e308, 1e-308, 1e18)
VALUES: tuple[Any, ...] = (
    *NUMBERS, True, False, None, "", "0", "x", "slim", "refit", "\u202e\x1b[2J", "9" * 400, [], [[]], [0], [[0], [1]],
    [0, "a"], {}, {"kept": []}, {"0": [0]}, [[[[0]]]], list(range(50)),
)  # fmt: skip
TEXTS = (
    "nan", "inf", "-inf", "1e400", "-1", "0", "1e18", "99999999999999999999", "150%", "-5%", "none", "true", "[]",
    '"x"', "[[]]", '""', "{}", "{a=1}", "[1,2]", "1979-05-27", "0x10", "1_000", "'''", "\x00", "é", "50%%", "l1",
)  # fmt: skip


def as_toml(body: Any) -> str:
    """A dict as TOML, whatever it holds; what TOML cannot say stands in it all the same."""
    tables = [(k, v) for k, v in body.items() if isinstance(v, dict)]
    lines = [f"{_key(k)} = {_plain(v)}" for k, v in body.items() if not isinstance(v, dict)]
    for name, inner in tables:
        lines += [f"[{_key(name)}]", *(f"{_key(k)} = {_plain(v)}" for k, v in inner.items())]
    return "\n".join(lines)


def _key(text: str) -> str:
    return json.dumps(text) if not text.isidentifier() else text


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_plain(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return "nan" if value is None else str(value).lower()


def places_in(body: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) inside."""
    for key in list(body) if isinstance(body, dict) else range(len(body)):
        yield body, key
        if isinstance(body[key], dict | list):
            yield from places_in(body[key])


def change(rng: random.Random, holder: Any, key: Any) -> None:
    """Change one entry of a dict or list."""
    if key not in holder if isinstance(holder, dict) else key >= len(holder):
        return
    value = holder[key]
    kinds: list[Callable[[], Any]] = [lambda: holder.__setitem__(key, copy.deepcopy(rng.choice(VALUES)))]
    if isinstance(value, int) and not isinstance(value, bool):
        kinds += [lambda: holder.__setitem__(key, value + rng.choice((-2, -1, 1, 2)))] * 3
    if isinstance(value, list) and value:
        kinds += [
            lambda: value.append(copy.deepcopy(rng.choice(value))), lambda: value.pop(rng.randrange(len(value))),
            lambda: rng.shuffle(value), lambda: holder.__setitem__(key, [value]),
            lambda: holder.__setitem__(key, value[: len(value) // 2]),
        ]  # fmt: skip
    if isinstance(holder, dict):
        kinds += [lambda: holder.pop(key), lambda: holder.__setitem__(f"{key}x", holder.pop(key)),
                  lambda: holder.__setitem__(rng.choice(("1", "-1", "9", "axis", "01")), holder.pop(key))]  # fmt: skip
    if isinstance(value, str):
        kinds += [lambda: holder.__setitem__(key, spoiled(rng, value)),
                  lambda: holder.__setitem__(key, reworded(rng, value, False))]  # fmt: skip
    rng.choice(kinds)()


def spoiled(rng: random.Random, text: str) -> str:
    """Characters lost, doubled, replaced, or the end cut off."""
    at = rng.randrange(len(text) + 1)
    other = chr(rng.choice((0, 9, 34, 44, 58, 91, 93, 123, 125, 0xE9, 0xD800, 0x1F600, rng.randrange(32, 127))))
    return rng.choice((text[:at], text[:at] + other + text[at:], text[:at] + other + text[at + 1 :], text[at:],
                       text[:at] + text[: at // 2] + text[at:]))  # fmt: skip


def reworded(rng: random.Random, text: str, toml: bool) -> str:
    """One word, number or line replaced by another, lost or doubled."""
    if toml and rng.random() < 0.3:
        lines = text.splitlines()
        one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[one : one + rng.choice((0, 1))] = rng.choice(
            ([], [lines[two]], [f"{rng.choice(TEXTS)} = {rng.choice(TEXTS)}"])
        )
        return "\n".join(lines)
    words, start = [], 0
    for at, char in enumerate(f"{text} "):
        if not (char.isalnum() or char in "_%.*"):
            if at > start:
                words.append((start, at))
            start = at + 1
    if not words:
        return text + rng.choice(TEXTS)
    start, end = rng.choice(words)
    a, b = rng.choice(words)
    new = rng.choice((rng.choice(TEXTS), rng.choice(TEXTS), text[a:b], str(rng.choice(NUMBERS)), ""))
    return text[:start] + new + text[end:]
