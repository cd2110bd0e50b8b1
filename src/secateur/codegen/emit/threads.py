"""The steps of a network on several threads: one fork, a barrier between steps, one join.

A fork and a join for each kernel cost more than a small kernel takes. So threads are forked once for a whole run of
steps (TVM's ``parallel_launch_point``) and wait at a barrier after each (``parallel_barrier_when_finish``), which costs
them one look at each other's counters; after the last they are joined instead. A step for one thread is done by the
first, while the others wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import tvm
from tvm import tirx

from .builder import WORKERS, const
from .types import Buffer, Expr, Function, Stmt, Var


@dataclass
class Step:
    """Calls that need nothing of each other: ``partitioned`` as (workers, function, arguments), ``own`` by worker."""

    partitioned: list[tuple[int, tvm.ir.GlobalVar, list[Expr]]] = field(default_factory=list)
    own: dict[int, list[Stmt]] = field(default_factory=dict)

    def add(self, function: Function, name: tvm.ir.GlobalVar, arguments: list[Expr], worker: int | None) -> None:
        """One more call of a function of this name."""
        attributes = function.attrs or {}
        if WORKERS in attributes:
            self.partitioned.append((int(attributes[WORKERS]), name, arguments))
        else:
            self.own.setdefault(worker or 0, []).append(tirx.Evaluate(tvm.ir.Call(name, arguments)))

    @property
    def serial(self) -> bool:
        """Has only the first thread something to do?"""
        return not self.partitioned and len(self.own) == 1

    def parallel(self) -> Stmt:
        """What threads do, as loops over them."""
        loops = [self._shared(*call) for call in self.partitioned]
        if self.own:
            loops.append(_by_worker({worker: sequence(calls) for worker, calls in self.own.items()}))
        return sequence(loops)

    @staticmethod
    def _shared(workers: int, name: tvm.ir.GlobalVar, arguments: list[Expr]) -> Stmt:
        worker = tirx.Var("worker", "int32")
        return _for(worker, workers, tirx.Evaluate(tvm.ir.Call(name, [*arguments, worker])))


def together(steps: Sequence[Step], stamps: Buffer | None = None) -> Stmt:
    """All steps in order. The cycle counter goes to ``stamps`` before the first and after each."""
    first = [] if stamps is None else [_stamp(stamps, 0)]
    if not all(step.serial for step in steps):
        return sequence([*first, _launch(steps, stamps)])
    body = first
    for i, step in enumerate(steps, 1):
        body += next(iter(step.own.values()))
        body += [] if stamps is None else [_stamp(stamps, i)]
    return sequence(body)


def _launch(steps: Sequence[Step], stamps: Buffer | None) -> Stmt:
    body = []
    for i, step in enumerate(steps, 1):
        parallel = step.parallel()
        if i < len(steps) or stamps is not None:
            parallel = tirx.AttrStmt(const(0), "pragma_parallel_barrier_when_finish", const(1), parallel)
        body.append(parallel)
        if stamps is not None:
            body.append(_by_worker({0: _stamp(stamps, i)}))
    return tirx.AttrStmt(const(0), "pragma_parallel_launch_point", const(1), sequence(body))


def _by_worker(parts: dict[int, Stmt]) -> Stmt:
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


def _for(worker: Var, count: int, body: Stmt) -> Stmt:
    return tirx.For(worker, *(tirx.IntImm("int32", i) for i in (0, count)), tirx.ForKind.PARALLEL, body)


def _stamp(stamps: Buffer, i: int) -> Stmt:
    return tirx.BufferStore(stamps, tirx.call_llvm_intrin("int64", "llvm.readcyclecounter"), [const(i)])


def sequence(statements: Sequence[Stmt]) -> Stmt:
    """Statements as one."""
    return tirx.SeqStmt(list(statements)) if len(statements) != 1 else statements[0]
