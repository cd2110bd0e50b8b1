"""The policy file: TOML, one section for each part."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping

from secateur.ir import InputError
from secateur.passes import AFTER_CUT, ALLOCATORS, CRITERIA, PASSES
from secateur.passes.allocate.amount import TIMED, takes_budget
from secateur.passes.pipeline import Pass, build, options_of, parse_pass, print_pass, print_value

from .parts import ALREADY, UNMET, Parts, amount, check_known, of_texts, passes_of

SECTIONS = ("budget", "rewrite", "score", "allocate", "protect", "slim", "compensate", "deploy")
Section = Mapping[str, object]


def read_toml(text: str) -> Parts:
    """Read the policy file's text. Raises InputError for unknown sections and keys."""
    data: dict[str, object] = tomllib.loads(text)
    check_known(data, SECTIONS, "section")
    sections = {name: _section(data, name) for name in SECTIONS}
    score, allocate, compensate = dict(sections["score"]), dict(sections["allocate"]), sections["compensate"]
    rewrites = passes_of(_texts(sections["rewrite"], "passes", "rewrite"), "'rewrites'")
    protect = _texts(sections["protect"], "layers", "protect")
    check_known(compensate, tuple(AFTER_CUT), "key of [compensate]")
    for name, value in compensate.items():
        if not isinstance(value, bool | str):
            raise InputError(
                f"[compensate] {name} = {value!r}: write true, false, or the pass with its options as text"
            )
    portable = _portable(sections["slim"])
    targets = _texts(sections["deploy"], "targets", "deploy")
    default = Parts()
    round_to = allocate.pop("round_to", default.round_to)
    criterion = score.pop("criterion", "l1")
    if criterion == "none":
        for kind, value in sections["budget"].items():
            raise InputError(UNMET.format(what='criterion = "none"', budget=f"[budget] {kind} = {value!r}"))
        for name in () if rewrites else compensate:
            raise InputError(
                f'[compensate] {name} repairs a pruned network, but criterion = "none" prunes nothing; name a '
                'criterion such as "l1", or leave [compensate] out'
            )
        return Parts(None, compensate=_repairs(compensate), rewrites=rewrites, targets=targets)
    budgets = sections["budget"]
    if len(budgets) > 1:
        raise InputError(f"[budget] names {len(budgets)} budgets ({', '.join(budgets)}); give one")
    method = build(str(allocate.pop("method", default.method.name)), allocate, ALLOCATORS)
    for kind, value in () if takes_budget(method) else budgets.items():
        raise InputError(ALREADY.format(method=method.name, budget=f"{kind}={value}"))
    return Parts(
        build(str(criterion), score, CRITERIA),
        method,
        next(((kind, amount(kind, value)) for kind, value in budgets.items()), default.budget),
        _round_to(round_to),
        protect,
        _repairs(compensate),
        rewrites,
        portable,
        targets,
    )


def _repairs(section: Mapping[str, object]) -> tuple[Pass, ...]:
    """The passes of [compensate] that are not off."""
    return tuple(parse_pass(v if isinstance(v, str) else name, PASSES) for name, v in section.items() if v)


def write_toml(parts: Parts) -> str:
    """The policy file. Raises InputError for a criterion of the user's own, which a file cannot hold."""
    rewrites = ["[rewrite]", f"passes = {_toml(tuple(map(print_pass, parts.rewrites)))}", ""] if parts.rewrites else []
    deploy = ["", "[deploy]", f"targets = {_toml(parts.targets)}"] if parts.targets else []
    texts = ((step.name, print_pass(step)) for step in parts.compensate)
    repairs = [f"{name} = {'true' if text == name else _toml(text)}" for name, text in texts]
    repairs = ["", "[compensate]", *repairs] if repairs else []
    if parts.criterion is None:
        return "\n".join([*rewrites, "[score]", 'criterion = "none"', *repairs, *deploy]) + "\n"
    if type(parts.criterion) is not CRITERIA.get(parts.criterion.name):
        raise InputError(
            f"policy: the criterion '{parts.criterion.name}' is code of your own, which no file can hold; keep the "
            "policy in Python"
        )
    kind, value = parts.budget
    shown = print_value(value) if isinstance(value, float) and kind not in TIMED else value
    budget = ["[budget]", f"{kind} = {_toml(shown)}", ""] if takes_budget(parts.method) else []
    lines = [*budget, *rewrites, "[score]", *_options("criterion", parts.criterion)]
    lines += ["", "[allocate]", *_options("method", parts.method), f"round_to = {_toml(parts.round_to)}"]
    lines += ["", "[protect]", f"layers = {_toml(parts.protect)}"]
    if not parts.portable:
        lines += ["", "[slim]", "portable = false"]
    return "\n".join([*lines, *repairs, *deploy]) + "\n"


def _section(data: Section, name: str) -> Section:
    section = data.get(name, {})
    if not isinstance(section, dict):
        raise InputError(f"'{name}' stands alone; write it as a section, [{name}]")
    return section


def _texts(section: Section, key: str, name: str) -> tuple[str, ...]:
    """A list of texts, or one alone, under this key of a section. Raises InputError."""
    check_known(section, (key,), f"key of [{name}]")
    found = section.get(key, ())
    return of_texts((found,) if isinstance(found, str) else found, f"[{name}] {key}")


def _round_to(given: object) -> int | str:
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise InputError(f"[allocate] round_to is {given!r}; give 'auto' or a whole number from 1 up")
    return given


def _portable(section: Section) -> bool:
    check_known(section, ("portable",), "key of [slim]")
    found = section.get("portable", True)
    if not isinstance(found, bool):
        raise InputError(f"[slim] portable = {found!r}: write true or false")
    return found


def _options(key: str, step: Pass) -> list[str]:
    """``name`` and its options as TOML lines."""
    lines = [f"{key} = {_toml(step.name)}"]
    for item in options_of(step):
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
