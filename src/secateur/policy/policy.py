"""What to prune by and how much: a policy as a value, a TOML file, a preset or a one-line spec."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from secateur.ir import InputError
from secateur.ir.files import write_text
from secateur.passes import ALLOCATORS, COMPENSATION, CRITERIA, PASSES, REWRITES
from secateur.passes.allocate import Rounds, Timed
from secateur.passes.allocate.budget import check_amount
from secateur.passes.allocate.timed import at_share
from secateur.passes.coupling.couple import Couple
from secateur.passes.pipeline import (
    Pass,
    build,
    check_numbers,
    number,
    parse_pass,
    parse_spec,
    print_pass,
    print_spec,
    print_value,
)
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.slim import Slim
from secateur.passes.sweep.gather import Gather

UNMET = (
    "{what} prunes nothing, so the budget {budget} cannot be met; name a criterion, as in --policy l1 or "
    "'separable{{rank=1}},l1', or leave the budget out"
)
BUDGETS = ("macs", "params", "bytes", "latency_ms")


@dataclass(frozen=True)
class Policy:
    """A criterion, an allocation under one budget, and layers to leave alone.

    ``criterion`` and ``method`` are passes with their options, without braces where there are none (``"l1"``,
    ``"global{floor=20%,rounds=3}"``); ``criterion=None`` prunes nothing. ``budget`` is one of macs, params, bytes and
    what remains of it: a share (0.5) or an absolute whole number; or latency_ms. ``protect`` are globs of layer
    names, ``rewrites`` passes that restructure the network first, in this order (``"separable{rank=1}"``), also where
    ``criterion`` is None, and ``compensate`` passes that mend the result from calibration data (``"refit"``,
    ``"reestimate_bn"``).
    """

    criterion: str | None = "l1"
    method: str = "global"
    budget: tuple[str, float | int] = ("macs", 0.5)
    round_to: int | str = "auto"
    protect: tuple[str, ...] = ()
    compensate: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises InputError for a name, option or number that does not exist or makes no sense."""
        for field in ("protect", "compensate", "rewrites"):
            _of_texts(getattr(self, field), f"'{field}'")
        _of_texts((self.method, *([] if self.criterion is None else [self.criterion])), "'criterion' and 'method'")
        kind, value = self.budget
        check_budget(kind, value)
        if self.criterion is not None:
            _of_kind(parse_pass(self.criterion, PASSES), CRITERIA, "criterion")
            _of_kind(self._allocator(), ALLOCATORS, "allocation method")
        for text in self.rewrites:
            _of_kind(parse_pass(text, PASSES), REWRITES, "rewrite")
        for text in self.compensate:
            _of_kind(parse_pass(text, PASSES), COMPENSATION, "compensation")

    @property
    def changes(self) -> bool:
        """Does this policy prune or rewrite anything?"""
        return self.criterion is not None or bool(self.rewrites)

    def structure(self) -> tuple[Pass, ...]:
        """What rewrites the network before anything is pruned."""
        return tuple(parse_pass(text, REWRITES) for text in self.rewrites)

    def passes(self, seed: int = 0) -> tuple[Pass, ...]:
        """The pipeline up to ``slim``. ``seed`` goes to criteria that draw numbers and were not given one."""
        if self.criterion is None:
            return (Canonicalize(),)
        score: Any = parse_pass(self.criterion, PASSES)
        if "seed" in {f.name for f in dataclasses.fields(score)} and "seed=" not in self.criterion:
            score = dataclasses.replace(score, seed=seed)
        gather = (Gather((score,)),) if score.data else ()
        scored = (Couple(protect=self.protect), *gather, score)
        return (Canonicalize(), *scored, self._allocation(scored), Slim())

    def _allocation(self, again: tuple[Pass, ...]) -> Pass:
        """The allocator, in the rounds and with the latency that it asks for; ``again`` couples and scores."""
        method: Any = self._allocator()
        step: Any = dataclasses.replace(method, rounds=1, latency_ms=None)
        if method.rounds != 1:
            step = Rounds(method.rounds, step, again)
        return step if method.latency_ms is None else Timed(method.latency_ms, functools.partial(at_share, step))

    @property
    def uses_data(self) -> bool:
        """Does any part of it look at calibration data?"""
        steps = self.structure()
        if self.criterion is not None:
            steps = (*steps, parse_pass(self.criterion, PASSES), self._allocator())
        return bool(self.compensation()) or any(getattr(step, "data", False) for step in steps)

    def compensation(self) -> tuple[Pass, ...]:
        """What mends the slim network, after the law was checked on it."""
        return tuple(parse_pass(text, COMPENSATION) for text in self.compensate) if self.criterion is not None else ()

    def _allocator(self) -> Pass:
        method = parse_pass(self.method, PASSES)
        kind, value = self.budget
        options: dict[str, Any] = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}  # type: ignore[arg-type]
        return build(method.name, {**options, kind: value, "round_to": self.round_to}, PASSES)

    def with_budget(self, kind: str, value: object) -> Policy:
        """The same policy under another budget; ``value`` may be text such as ``50%`` or ``120M``.

        Raises InputError for senseless amounts, and where nothing is pruned that could meet one.
        """
        if self.criterion is None:
            raise InputError(UNMET.format(what=f"policy '{self.spec}'", budget=f"{kind}={value}"))
        return dataclasses.replace(self, budget=(kind, amount(kind, value)))

    @property
    def spec(self) -> str:
        """The one-line form: ``separable,l1,global{macs=50%},slim``; rewrites alone, or ``none``."""
        if self.criterion is None:
            return print_spec(self.structure()) or "none"
        steps = [*self.structure(), parse_pass(self.criterion, PASSES), self._allocator(), Slim(), *self.compensation()]
        if self.protect:
            steps.insert(len(self.rewrites), Couple(protect=self.protect))
        return print_spec(steps)

    def __str__(self) -> str:
        return self.spec

    def to_toml(self) -> str:
        """The policy file."""
        if self.criterion is None:
            rewrites = f"[rewrite]\npasses = {_toml(self.rewrites)}\n\n" if self.rewrites else ""
            return rewrites + '[score]\ncriterion = "none"\n'
        kind, value = self.budget
        shown = print_value(value) if isinstance(value, float) and kind != "latency_ms" else value
        lines = ["[budget]", f"{kind} = {_toml(shown)}", "", "[score]"]
        if self.rewrites:
            lines[-1:] = ["", "[rewrite]", f"passes = {_toml(self.rewrites)}", "", "[score]"]
        lines += _options("criterion", self.criterion)
        lines += ["", "[allocate]", *_options("method", self.method), f"round_to = {_toml(self.round_to)}"]
        lines += ["", "[protect]", f"layers = {_toml(self.protect)}"]
        if self.compensate:
            lines += ["", "[compensate]"]
            lines += [f"{text} = true" if "{" not in text else f"{text.partition('{')[0]} = {_toml(text)}"
                      for text in self.compensate]  # fmt: skip
        return "\n".join(lines) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the policy file, whole or not at all. Raises InputError."""
        write_text(path, self.to_toml())

    @staticmethod
    def parse(given: Policy | str | Path) -> Policy:
        """A policy from what users write: a policy, a preset's name, a spec line, or the path of a TOML file.

        Raises InputError that names what is unknown and what comes close.
        """
        if isinstance(given, Policy):
            return given
        text = str(given)
        if text in PRESETS:
            return PRESETS[text]
        if isinstance(given, Path) or text.endswith(".toml"):
            return Policy.load(text)
        return from_spec(text)

    @staticmethod
    def load(path: str | Path) -> Policy:
        """Read a policy file. Raises InputError."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"policy file '{path}' cannot be read: {error}") from error
        try:
            return from_toml(text)
        except (InputError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"policy file '{path}': {error}") from error


def check_budget(kind: str, value: float | int) -> None:
    """Raises InputError for a budget that does not exist or makes no sense."""
    if kind not in BUDGETS:
        raise InputError(f"there is no budget '{kind}'{_close(kind, BUDGETS)}; give one of {BUDGETS}")
    check_amount(kind, value)


def amount(kind: str, value: object) -> float | int:
    """``"50%"`` -> 0.5, ``"120M"`` -> 120000000; numbers as they are. Raises InputError."""
    found = number(value.strip()) if isinstance(value, str) else value
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InputError(f"budget {kind}={value!r} is no amount; write a share (50%, 0.5) or a number (120M, 3000000)")
    check_budget(kind, found)
    return float(found) if kind == "latency_ms" else found


def from_spec(text: str) -> Policy:
    """Read ``taylor,knapsack{macs=50%},slim``. Couple and slim may be left out. Raises InputError."""
    if text.strip() == "none":
        return PRESETS["none"]
    rewrites: list[str] = []
    steps = list(parse_spec(text, PASSES))
    while steps and steps[0].name in REWRITES:
        rewrites.append(print_pass(steps.pop(0)))
    rewrites = [spec for spec in rewrites if spec != Canonicalize.name]  # it runs before every analysis in any case
    if not steps:
        return Policy(None, rewrites=tuple(rewrites))
    criterion: Pass | None = None
    allocator: Pass | None = None
    protect: tuple[str, ...] = ()
    compensate: list[str] = []
    for step in steps:
        if step.name in CRITERIA and criterion is None:
            criterion = step
        elif step.name in ALLOCATORS and allocator is None:
            allocator = step
        elif isinstance(step, Couple):
            protect = step.protect
        elif step.name in COMPENSATION:
            compensate.append(print_pass(step))
        elif not isinstance(step, Slim | Canonicalize):
            raise InputError(_misplaced(text, step))
    if criterion is None:
        raise InputError(f"policy '{text}' names no criterion; start with one of {', '.join(CRITERIA)}")
    default = Policy()
    if allocator is None:
        return Policy(print_pass(criterion), protect=protect, compensate=tuple(compensate), rewrites=tuple(rewrites))
    budgets = {k: getattr(allocator, k) for k in (*BUDGETS, "channels") if getattr(allocator, k, None) is not None}
    if len(budgets) > 1:
        raise InputError(f"policy '{text}' names {len(budgets)} budgets; give one")
    if "channels" in budgets:
        raise InputError(f"policy '{text}': a policy's budget is one of {', '.join(BUDGETS)}")
    plain = dataclasses.replace(allocator, round_to="auto", **dict.fromkeys(budgets))  # type: ignore[type-var]
    budget = next(iter(budgets.items()), default.budget)
    return Policy(
        print_pass(criterion), print_pass(plain), budget, allocator.round_to,  # type: ignore[attr-defined]
        protect, tuple(compensate), tuple(rewrites),
    )  # fmt: skip


def _misplaced(text: str, step: Pass) -> str:
    if step.name in REWRITES:
        return (
            f"policy '{text}': '{step.name}' stands behind other passes; rewrites come first, so that what they make "
            "is scored and pruned"
        )
    return (
        f"policy '{text}': '{step.name}' does not fit; a policy is rewrites ({', '.join(REWRITES)}), a criterion "
        f"({', '.join(CRITERIA)}), an allocation ({', '.join(ALLOCATORS)}), slim and compensation "
        f"({', '.join(COMPENSATION)}), as in 'l1,global{{macs=50%}},slim'"
    )


def from_toml(text: str) -> Policy:
    """Read the policy file's text. Raises InputError for unknown sections and keys."""
    data = tomllib.loads(text)
    _known(data, ("budget", "rewrite", "score", "allocate", "protect", "compensate"), "section")
    for name, section in data.items():
        if not isinstance(section, dict):
            raise InputError(f"'{name}' stands alone; write it as a section, [{name}]")
    result = Policy()
    score, allocate = dict(data.get("score", {})), dict(data.get("allocate", {}))
    protect, compensate = data.get("protect", {}), data.get("compensate", {})
    rewrites, protected = _texts(data.get("rewrite", {}), "passes", "rewrite"), _texts(protect, "layers", "protect")
    _known(compensate, tuple(COMPENSATION), "key of [compensate]")
    for name, value in compensate.items():
        if not isinstance(value, bool | str):
            raise InputError(
                f"[compensate] {name} = {value!r}: write true, false, or the pass with its options as text"
            )
    round_to = allocate.pop("round_to", result.round_to)
    criterion = score.pop("criterion", result.criterion)
    if criterion == "none":
        for kind, value in data.get("budget", {}).items():
            raise InputError(UNMET.format(what='criterion = "none"', budget=f"[budget] {kind} = {value!r}"))
        for name in compensate:
            raise InputError(f"[compensate] {name} mends a pruned network, but criterion = \"none\" prunes nothing; "
                             "name a criterion such as \"l1\", or leave [compensate] out")  # fmt: skip
        return dataclasses.replace(result, criterion=None, rewrites=rewrites)
    budget = data.get("budget", {})
    if len(budget) > 1:
        raise InputError(f"[budget] names {len(budget)} budgets ({', '.join(budget)}); give one")
    return Policy(
        print_pass(build(str(criterion), score, CRITERIA)),
        print_pass(build(str(allocate.pop("method", result.method)), allocate, ALLOCATORS)),
        next(((kind, amount(kind, value)) for kind, value in budget.items()), result.budget),
        round_to,
        protected,
        tuple(value if isinstance(value, str) else name for name, value in compensate.items() if value),
        rewrites,
    )


def _texts(section: Mapping[str, Any], key: str, name: str) -> tuple[str, ...]:
    """A list of texts, or one alone, under this key of a section. Raises InputError."""
    _known(section, (key,), f"key of [{name}]")
    found = section.get(key, ())
    found = (found,) if isinstance(found, str) else found
    _of_texts(found, f"[{name}] {key}")
    return tuple(found)


def _of_texts(found: object, what: str) -> None:
    """Raises InputError for anything but a list or tuple of text."""
    if not isinstance(found, list | tuple):
        raise InputError(f"{what} is {repr(found)[:40]}; write a list of text in quotes")
    wrong = [item for item in found if not isinstance(item, str)]
    if wrong:
        raise InputError(f"{what} holds {repr(wrong[0])[:40]}, which is no text; put it in quotes")


def _known(given: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    for key in given:
        if key not in names:
            raise InputError(f"unknown {what} '{key}'{_close(key, names)}; known are {', '.join(names)}")


def _close(word: str, names: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def _of_kind(step: Pass, table: Mapping[str, Any], what: str) -> None:
    check_numbers(step)
    if step.name not in table:
        raise InputError(f"'{step.name}' is no {what}; choose one of {', '.join(table)}")


def _options(key: str, spec: str) -> list[str]:
    """``name`` and its options as TOML lines."""
    name = spec.partition("{")[0]
    lines = [f"{key} = {_toml(name)}"]
    if name != "none":
        step = parse_pass(spec, PASSES)
        for item in dataclasses.fields(step):  # type: ignore[arg-type]
            value = getattr(step, item.name)
            if value != item.default and value is not None:
                lines.append(f"{item.name} = {_toml(value)}")
    return lines


def _toml(value: object) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


PRESETS: Mapping[str, Policy] = MappingProxyType({"l1": Policy(), "none": Policy(criterion=None)})
