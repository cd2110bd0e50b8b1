"""The steps of a network on several threads: one fork, and a barrier after each step.

A fork and a join for each kernel cost more than a small kernel takes. So threads are forked once for a whole run of
steps (TVM's ``parallel_launch_point``) and wait at a barrier after each (``parallel_barrier_when_finish``), which costs
them one look at each other's counters; they are joined after the last. A step for one thread is done by the first,
while the others wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import tirx

from .builder import WORKERS, const


@dataclass
class Step:
    """Calls that need nothing of each other: ``shared`` ones as (workers, function, arguments), others by worker."""

    shared: list[tuple[int, Any, list[Any]]] = field(default_factory=list)
    own: dict[int, list[Any]] = field(default_factory=dict)

    def add(self, function: Any, name: Any, arguments: list[Any], worker: int | None) -> None:
        """One more call of a function of this name."""
        attributes = function.attrs or {}
        if WORKERS in attributes:
            self.shared.append((int(attributes[WORKERS]), name, arguments))
        else:
            self.own.setdefault(worker or 0, []).append(tirx.Evaluate(tvm.ir.Call(name, arguments)))

    @property
    def serial(self) -> bool:
        """Has only the first thread something to do?"""
        return not self.shared and len(self.own) == 1

    def parallel(self) -> Any:
        """What threads do, as loops over them."""
        loops = [self._shared(*call) for call in self.shared]
        if self.own:
            loops.append(_by_worker({worker: sequence(calls) for worker, calls in self.own.items()}))
        return sequence(loops)

    @staticmethod
    def _shared(workers: int, name: Any, arguments: list[Any]) -> Any:
        worker = tirx.Var("worker", "int32")
        return _for(worker, workers, tirx.Evaluate(tvm.ir.Call(name, [*arguments, worker])))


def together(steps: Sequence[Step], stamps: Any = None) -> Any:
    """All steps in order. The cycle counter goes to ``stamps`` before the first and after each."""
    first = [] if stamps is None else [_stamp(stamps, 0)]
    if not all(step.serial for step in steps):
        return sequence([*first, _launch(steps, stamps)])
    body = first
    for i, step in enumerate(steps, 1):
        body += next(iter(step.own.values()))
        body += [] if stamps is None else [_stamp(stamps, i)]
    return sequence(body)


def _launch(steps: Sequence[Step], stamps: Any) -> Any:
    body = []
    for i, step in enumerate(steps, 1):
        body.append(tirx.AttrStmt(const(0), "pragma_parallel_barrier_when_finish", const(1), step.parallel()))
        if stamps is not None:
            body.append(_by_worker({0: _stamp(stamps, i)}))
    return tirx.AttrStmt(const(0), "pragma_parallel_launch_point", const(1), sequence(body))


def _by_worker(parts: dict[int, Any]) -> Any:
    """What each of these workers does.

    At least two rounds, the second of which may do nothing: TVM takes a loop of one round away, and all threads would
    do what only the first shall.
    """
    worker = tirx.Var("worker", "int32")
    count = max(2, max(parts) + 1)
    *others, last = sorted(parts)
    whole = parts[last] if len(parts) == count else tirx.IfThenElse(worker == last, parts[last], None)
    for i in reversed(others):
        whole = tirx.IfThenElse(worker == i, parts[i], whole)
    return _for(worker, count, whole)


def _for(worker: Any, count: int, body: Any) -> Any:
    return tirx.For(worker, *(tirx.IntImm("int32", i) for i in (0, count)), tirx.ForKind.PARALLEL, body)


def _stamp(stamps: Any, i: int) -> Any:
    return tirx.BufferStore(stamps, tirx.call_llvm_intrin("int64", "llvm.readcyclecounter"), [const(i)])


def sequence(statements: Sequence[Any]) -> Any:
    """Statements as one."""
    return tirx.SeqStmt(list(statements)) if len(statements) != 1 else statements[0]
