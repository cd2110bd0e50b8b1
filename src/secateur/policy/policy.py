"""A policy: what to prune by and how much, as passes; text only where it is read and printed."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from secateur.ir import InputError
from secateur.ir.files import write_text
from secateur.passes import COMPENSATION
from secateur.passes.allocate import Knapsack, Rounds, Timed
from secateur.passes.allocate.amount import TIMED, Allocator, Amount, takes_budget
from secateur.passes.allocate.own_readers import OwnReaders
from secateur.passes.allocate.swap import Swap
from secateur.passes.allocate.timed import TIED, at_share, by_time
from secateur.passes.coupling.couple import Couple
from secateur.passes.pipeline import Pass, keeps_state, options_of, with_options
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.slim import Slim
from secateur.passes.score import Criterion
from secateur.passes.score.criterion import Exchanging
from secateur.passes.sweep.gather import Gather

from .parts import (
    ALREADY,
    NOTHING,
    UNMET,
    Parts,
    amount,
    check_parts,
    criterion_of,
    method_of,
    of_texts,
    passes_of,
    per_reader,
)
from .spec import read_spec, write_spec
from .toml import read_toml, write_toml


@dataclass(frozen=True, init=False)
class Policy(Parts):
    """A criterion, an allocation under one budget, and layers to leave alone.

    ``criterion`` and ``method`` are passes, or the text that spells them, without braces where there are no options
    (``"l1"``, ``"global{floor=20%,rounds=3}"``); a criterion may be code of your own (``secateur.passes.Criterion``).
    ``criterion=None`` prunes nothing. ``budget`` is one of macs, params, bytes, channels and what remains of it: a
    share (0.5) or an absolute whole number; or latency_ms, or speedup (2.0). ``protect`` are globs of layer names,
    ``rewrites`` passes that restructure the network first, in this order (``"separable{rank=1}"``), also where
    ``criterion`` is None, and after any of them what repairs its weights before channels are scored (``"refit"``);
    ``compensate`` passes that repair the result from calibration data (``"refit"``, ``"reestimate_bn"``). With
    ``portable`` channels are put into an order in which shuffles can be written without an index, which some runtimes
    get wrong. ``targets`` are what libraries are built for (``"aarch64:cortex-a76"``), and whose vectors widths fill,
    unless ``compile`` is told another target.
    """

    def __init__(
        self,
        criterion: Criterion | str | None = "l1",
        method: Allocator | str = "global",
        budget: tuple[str, float | int] = ("macs", 0.5),
        round_to: int | str = "auto",
        protect: Sequence[str] = (),
        compensate: Sequence[Pass | str] = (),
        rewrites: Sequence[Pass | str] = (),
        portable: bool = True,
        targets: Sequence[str] = (),
    ) -> None:
        """Raises InputError for a name, option or number that does not exist or makes no sense."""
        super().__init__(
            criterion_of(criterion),
            method_of(method),
            budget,
            round_to,
            of_texts(protect, "'protect'"),
            passes_of(compensate, "'compensate'"),
            passes_of(rewrites, "'rewrites'"),
            portable,
            of_texts(targets, "'targets'"),
        )
        check_parts(self)

    @property
    def changes(self) -> bool:
        """Does this policy prune or rewrite anything?"""
        return self.criterion is not None or bool(self.rewrites)

    def passes(self, seed: int = 0) -> tuple[Pass, ...]:
        """The pipeline up to ``slim``. ``seed`` goes to criteria that draw numbers and were given none but 0."""
        if self.criterion is None:
            return (Canonicalize(),)
        scored = self.scoring(seed)
        better = (Swap(self.criterion),) if isinstance(self.criterion, Exchanging) and self.criterion.swaps else ()
        return (Canonicalize(), *scored, self._allocation(scored), *better, Slim())

    def scoring(self, seed: int = 0) -> tuple[Pass, ...]:
        """Coupling, the sweep if there is a need for one, and the criterion; the coupling alone without a criterion."""
        score = self.criterion
        if score is None:
            return (Couple(protect=self.protect),)
        if any(item.name == "seed" and getattr(score, "seed", None) == item.default for item in options_of(score)):
            score = with_options(score, seed=seed)
        gather = (Gather((score,)),) if score.data else ()
        return (Couple(protect=self.protect), *gather, score)

    def _allocation(self, again: tuple[Pass, ...]) -> Pass:
        """The allocator, in the rounds and with the latency that it asks for; ``again`` couples and scores.

        Between two rounds the network is repaired as it is in the end, but by nothing that takes as long as it may.
        """
        method = self.allocator()
        if not takes_budget(method):
            return method
        once = with_options(method, rounds=1, **dict.fromkeys(TIMED))
        if isinstance(once, Knapsack) and once.readers == "own":
            tied = with_options(once, readers="tied")
            own = OwnReaders(tied, per_reader(self))
            at, others = functools.partial(at_share, own), ((functools.partial(at_share, tied), TIED),)
            return Timed(Amount(*self.budget), at, False, own.lost, once.floor, others) if self.timed else own
        repairs = tuple(s for s in self.compensation() if s.name in COMPENSATION and not keeps_state(type(s)))
        step = once if method.rounds == 1 else Rounds(method.rounds, once, (*repairs, *again))
        if not self.timed:
            return step
        budget = Amount(*self.budget)
        if isinstance(step, Knapsack) and step.by == "time":
            return by_time(step, budget, repairs)
        return Timed(budget, functools.partial(at_share, step), floor=float(getattr(once, "floor", 0.0)))

    @property
    def timed(self) -> bool:
        """Is its budget one of time?"""
        return self.criterion is not None and takes_budget(self.method) and self.budget[0] in TIMED

    @property
    def uses_data(self) -> bool:
        """Does any part of it look at calibration data?"""
        steps: tuple[Pass, ...] = self.rewrites
        if self.criterion is not None:
            steps = (*steps, self.criterion, self.method)
        repairs = any(getattr(step, "data", True) for step in self.compensation())
        return repairs or any(getattr(step, "data", False) for step in steps)

    def compensation(self) -> tuple[Pass, ...]:
        """What repairs the network that was cut or rewritten, after the law was checked on it."""
        return self.compensate if self.changes else ()

    def with_budget(self, kind: str, value: object) -> Policy:
        """The same policy under another budget; ``value`` may be text such as ``50%`` or ``120M``.

        Raises InputError for senseless amounts, and where nothing is pruned that could meet one.
        """
        if self.criterion is None:
            raise InputError(UNMET.format(what=f"policy '{self.spec}'", budget=f"{kind}={value}"))
        if not takes_budget(self.method):
            raise InputError(ALREADY.format(method=self.method.name, budget=f"{kind}={value}"))
        return dataclasses.replace(self, budget=(kind, amount(kind, value)))

    @property
    def spec(self) -> str:
        """The one-line form: ``separable,l1,global{macs=50%},slim``; rewrites alone, or ``none``."""
        return write_spec(self)

    def __str__(self) -> str:
        return self.spec

    def to_toml(self) -> str:
        """The policy file. Raises InputError for a criterion of the user's own."""
        return write_toml(self)

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


def from_spec(text: str) -> Policy:
    """Read ``taylor,knapsack{macs=50%},slim``. Couple and slim may be left out. Raises InputError."""
    return _policy(read_spec(text))


def from_toml(text: str) -> Policy:
    """Read the policy file's text. Raises InputError for unknown sections and keys."""
    return _policy(read_toml(text))


def _policy(parts: Parts) -> Policy:
    return Policy(**{item.name: getattr(parts, item.name) for item in dataclasses.fields(parts)})


PRESETS: Mapping[str, Policy] = MappingProxyType({"l1": Policy(), "none": _policy(NOTHING)})
