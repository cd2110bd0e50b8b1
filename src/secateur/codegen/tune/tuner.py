"""Choosing how each kernel is tiled: from records, by measuring, or by default."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol, cast

from secateur.codegen.backends import backend_for
from secateur.codegen.host import family
from secateur.codegen.plan.family import Kernel, Workload, choices
from secateur.codegen.plan.program import Choice, Spec
from secateur.codegen.records import Doubt, Origin, Record, Records, key_of, record_of, stored
from secateur.codegen.runtime import ffi
from secateur.codegen.targets import Target, at_home, get_target
from secateur.ir import InputError
from secateur.ir.progress import Progress, quiet

from .pool import Pool

SHOWN = 3  # kernels that a note names
NEAR = 1.01  # choices within this of the fastest are as good: then the first of them in the space is taken
SHIPPED = Path(__file__).parents[1] / "shipped"


def candidates(spec: Spec, target: Target) -> list[Choice | None]:
    """The whole space of a kernel, the default first; [None] where there is nothing to choose."""
    template = backend_for(target).templates.get(type(spec))
    return [None] if template is None or template.space is None else list(template.space(spec, target))


def default_choice(spec: Spec, target: Target) -> Choice | None:
    """What is taken where nothing was measured; None for kernels without a choice."""
    return candidates(spec, target)[0]


def versions() -> dict[str, str]:
    """What made a library, and what a record was measured with."""
    found = {}
    for name in ("secateur", "apache-tvm", "apache-tvm-ffi"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def open_records(target: str | Target, path: str | Path | Records | None, known: bool = False) -> Records:
    """The records of a file, over those that come with secateur.

    Raises InputError if it cannot be read, or if it is ``known`` to be there and is not.
    """
    if isinstance(path, Records):
        return path
    if known and path is not None and not Path(path).exists():
        raise InputError(f"there are no records '{path}'; check the path, or tune to make them")
    ffi()  # before TVM, which would load torch
    chosen = get_target(target)
    shipped = SHIPPED / f"{chosen.like or chosen.name}.jsonl"
    revisions = {spec.__name__: template.revision for spec, template in backend_for(chosen).templates.items()}
    doubt = doubts(revisions, versions()["apache-tvm"])
    here = family() if at_home(chosen) else ""
    return Records(path, doubt, Records(shipped, doubt, family=here), here)


def doubts(revisions: Mapping[str, int], tvm: str) -> Doubt:
    """Why a record is not to be used: the kernels of its kind, or TVM, are others than those that were measured."""

    def doubt(record: Record) -> str | None:
        now, then = revisions.get(record.kind), record.versions.get("apache-tvm", "unknown")
        if record.revision != now:
            mine = "knows no such kernel" if now is None else f"writes revision {now}"
            return f"they are of revision {record.revision} of {record.kind}, this secateur {mine}"
        if then != tvm:
            return f"they were measured with apache-tvm {then}, this is {tvm}"
        return None

    return doubt


@dataclass(frozen=True)
class Outcome:
    """What tuning came to, in kernels: measured, without a choice that runs, and left when it ended."""

    measured: int = 0
    failed: int = 0
    left: int = 0
    interrupted: bool = False
    remarks: tuple[str, ...] = ()  # on the machines that measured

    @property
    def notes(self) -> tuple[str, ...]:
        """For the library's metadata: what was not measured, and why."""
        why = "tuning was interrupted" if self.interrupted else "the tuning time was up"
        left = f"{why}: {self.left} of {self.measured + self.failed + self.left} kernels were not measured"
        failed = f"{self.failed} kernels could not be measured: each choice failed, crashed or hung"
        return (*self.remarks, *((left,) if self.left else ()), *((failed,) if self.failed else ()))


class Team(Protocol):
    """What the tuner needs of ``Pool``."""

    @property
    def free(self) -> int: ...
    @property
    def remarks(self) -> tuple[str, ...]: ...
    def origin(self, name: int) -> Origin: ...
    def submit(self, name: int, kernels: Mapping[int, Kernel]) -> None: ...
    def wait(self, seconds: float) -> Mapping[int, Mapping[int, float]]: ...


class Tuner:
    """Choices for one target; ``notes`` says which came from a near shape, and which record lines were unusable.

    ``team`` makes the processes that measure, ``clock`` counts seconds: tests give their own.
    """

    def __init__(
        self,
        target: Target,
        threads: int,
        records: Records,
        team: Callable[[Target, int], contextlib.AbstractContextManager[Team]] = Pool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target, self.threads, self.records = target, threads, records
        self.backend = backend_for(target)
        self.kinds = choices(self.backend.families)  # of spec, each with that of its choice
        self.team, self.clock = team, clock
        self.dtypes = {kind: f.dtype for f in self.backend.families for kind in f.choices}
        self.near: dict[Workload, str] = {}
        self.guessed: dict[Workload, str] = {}  # with the family that was measured

    @property
    def notes(self) -> tuple[str, ...]:
        """For the library's metadata."""
        names = [name for name in (self.target.like, self.target.name) if name]
        others = None if any(self.records.others(n) is None for n in names) else self.records.others(names[-1])
        return (*self.records.notes, *((others,) if others else ()), *((self._nearest(),) if self.near else ()),
                *((self._guesses(),) if self.guessed else ()))  # fmt: skip

    def _guesses(self) -> str:
        """One line for all that another family measured."""
        families = " and ".join(sorted(set(self.guessed.values())))
        many = "1 kernel is" if len(self.guessed) == 1 else f"{len(self.guessed)} kernels are"
        return f"{many} as was best on {families}, a first guess for {self.records.family}; tune to measure here"

    def _nearest(self) -> str:
        """One line, however many they are: tuning measures them."""
        shapes = list(self.near.values())
        shown = ", ".join(shapes[:SHOWN]) + (", .." if len(shapes) > SHOWN else "")
        many = f"{len(shapes)} kernels were" if len(shapes) > 1 else "1 kernel was"
        return f"{many} not measured, tiled like the nearest shape: {shown}"

    def choose(self, spec: Spec, *alternatives: Spec) -> Choice | None:
        """The measured choice, else that of the nearest shape if it fits, else the default.

        ``alternatives`` are other specs that compute the same: the choice is that of the fastest, as its type says.
        """
        if alternatives:
            return self.choose(self.fastest(cast("Sequence[Workload]", (spec, *alternatives))))
        if type(spec) not in self.kinds:
            return None
        work = cast(Workload, spec).workload()
        space = candidates(work, self.target)
        record = self.records.find(self.name(work), work)
        if record is not None and (choice := self._fitting(work, record, space)) is not None:
            if self.records.foreign(record):
                self.guessed[work] = record.family
            return choice
        record = self.records.nearest(self.name(work), work)
        if record is not None and (choice := self._fitting(work, record, space)) is not None:
            self.near[work] = work.title
            return choice
        return space[0]

    def name(self, spec: Workload) -> str:
        """The target under which the records of a kernel stand: another one's where the code is the same."""
        plain = self.dtypes.get(type(spec), "f32") == "f32"
        return self.target.like if plain and self.target.like else self.target.name

    def _fitting(self, spec: Workload, record: Record, space: Sequence[Choice | None]) -> Choice | None:
        """The record's choice if it is one of the space, else None."""
        try:
            choice = self.kinds[type(spec)](*record.choice)
        except TypeError:  # it has other fields
            return None
        return choice if choice in space else None

    def fastest(self, specs: Sequence[Workload]) -> Workload:
        """Of kernels that compute the same: by measured seconds if one file has such for all, else by estimates."""
        times = self.seconds(specs) or [s.estimate(self.target) for s in specs]
        return specs[times.index(min(times))]

    def seconds(self, specs: Sequence[Workload]) -> list[float] | None:
        """Measured seconds of kernels that compute the same, if one file has such for all, of one family."""
        works = [s.workload() for s in specs]
        for records in self.records.layers:
            found = [r for w in works if (r := records.table.get(key_of(self.name(w), w))) is not None]
            if len(found) == len(specs) and len({r.family for r in found}) == 1:
                return [r.seconds for r in found]
        return None

    def least(self, specs: Sequence[Workload]) -> float | None:
        """Seconds of the fastest that was measured, of kernels that compute the same; None where none was.

        Of a kernel that has one choice, which nobody measures, the estimate counts.
        """
        known = [times[0] for s in specs if (times := self.seconds([s])) is not None]
        one = [s.estimate(self.target) for s in specs if len(candidates(s.workload(), self.target)) == 1]
        return min(known or one, default=None)

    def tune(self, specs: Sequence[Workload], seconds: float, progress: Progress = quiet) -> Outcome:
        """Measure the workloads that the records' file lacks, until the time is up.

        Those without any record come first, in the order given; alternatives are timed by turns. Ctrl-C ends it early.
        What was measured is in the file at once, whatever happens. Raises InputError if it cannot be written.
        """
        deadline = self.clock() + seconds
        todo = self.lacking(specs)
        if not todo or seconds <= 0:
            return Outcome(left=len(todo))
        self.records.check_writable()
        jobs = list(contests(todo))
        ended: list[bool] = []  # an entry for each kernel that came back: was it measured?
        given, interrupted, remarks = 0, False, tuple[str, ...]()
        try:
            with self.team(self.target, self.threads) as team:
                while len(ended) < len(todo) and (left := deadline - self.clock()) > 0:
                    while team.free and given < len(jobs):
                        progress(len(ended), len(todo), jobs[given][0].title)
                        team.submit(given, dict(enumerate(self._kernels(jobs[given]))))
                        given += 1
                    for index, times in team.wait(left).items():
                        ended += self.keep(jobs[index], times, team.origin(index))
                        progress(len(ended), len(todo), "")
                    remarks = team.remarks
        except KeyboardInterrupt:
            interrupted = True
        return Outcome(sum(ended), len(ended) - sum(ended), len(todo) - len(ended), interrupted, remarks)

    def lacking(self, specs: Sequence[Workload]) -> list[Workload]:
        """Those that the records' file does not hold and that have a choice, the ones without any record first."""
        todo = [s for s in specs if not self.records.holds(self.name(s), s) and len(candidates(s, self.target)) > 1]
        return sorted(todo, key=lambda s: self.records.find(self.name(s), s) is not None)

    def _kernels(self, specs: Sequence[Workload]) -> list[Kernel]:
        """All choices of some specs."""
        return [(spec, choice) for spec in specs for choice in candidates(spec, self.target)]

    def keep(self, specs: Sequence[Workload], times: Mapping[int, float], origin: Origin) -> list[bool]:
        """Append the records of alternatives; which of them could be measured."""
        found, first = [], 0
        for spec in specs:
            size = len(candidates(spec, self.target))
            mine = {i - first: t for i, t in times.items() if first <= i < first + size}
            found.append(self._keep(spec, mine, origin))
            first += size
        return found

    def _keep(self, spec: Workload, times: Mapping[int, float], origin: Origin) -> bool:
        """Append the record of a workload, if any of its choices ran."""
        if not times:
            return False
        space = candidates(spec, self.target)
        enough = NEAR * min(times.values())
        best = min(i for i, seconds in times.items() if seconds <= enough)
        timings = tuple((stored(space[i]), float(f"{t:.4g}")) for i, t in sorted(times.items()))
        revision = self.backend.templates[type(spec)].revision
        self.records.add(record_of(
            self.name(spec), spec, space[best], float(f"{times[best]:.4g}"), timings=timings, versions=versions(),
            revision=revision, family=origin.family, board=origin.board))  # fmt: skip
        return True


def contests(specs: Sequence[Workload]) -> Iterable[list[Workload]]:
    """Specs that compute the same stand together: what a busy machine does to one while it is timed, it does to all."""
    found: dict[Hashable, list[Workload]] = {}
    for spec in specs:
        found.setdefault(spec.computes, []).append(spec)
    return found.values()
