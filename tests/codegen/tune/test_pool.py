"""The measuring processes: a choice that fails costs itself alone, and nothing outlives its parent."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from secateur.codegen.kernels.conv.spec import ConvChoice, ConvSpec
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import native
from secateur.codegen.tune.pool import Pool
from secateur.ir import Unsupported

pytest.importorskip("tvm", reason="code generation needs apache-tvm")
PLANE = Strides(1024, 1024, 128, 16)
SPEC = ConvSpec(16, 1, 32, 2, 8, 8, (1, 1), (1, 1), (1, 1), PLANE, PLANE, False)
GOOD, REFUSED = ConvChoice(1, 1, 4), ConvChoice(0, 1, 4)
LONG = 100.0  # seconds that no test takes


class Killer:
    """Ends the process in which it is looked at."""

    def __getattr__(self, name: str) -> Any:
        if name == "nb":
            os.kill(os.getpid(), signal.SIGSEGV)
        raise AttributeError(name)


HEARD = 9  # looks at the clock after which what a worker said before it hung was heard


@dataclass
class Hanger:
    """Hangs the process in which it is looked at, and leaves a file that says so."""

    sign: str

    def __getattr__(self, name: str) -> Any:
        if name == "nb":
            Path(self.sign).touch()
            signal.pause()
        raise AttributeError(name)


@contextlib.contextmanager
def all_end(pids: list[int]) -> Iterator[None]:
    """What happens inside ends all these processes."""
    handles = [os.pidfd_open(pid) for pid in pids]
    yield
    for handle in handles:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(LONG * 1000), "a process outlived its parent"
        os.close(handle)


def finish(pool: Pool, count: int) -> dict[int, Any]:
    """The next results."""
    found: dict[int, Any] = {}
    while len(found) < count:
        found |= pool.wait(LONG)
    return found


def job(pool: Pool) -> None:
    """One that gives no trouble."""
    pool.submit(0, {0: (SPEC, GOOD)})
    assert finish(pool, 1)


def test_a_choice_that_fails_crashes_or_hangs_costs_itself_alone(tmp_path: Path) -> None:
    """The clock leaps when the worker says that it hangs, and was heard before: nobody waits."""
    sign = tmp_path / "hangs"
    choices = {0: GOOD, 1: REFUSED, 2: Killer(), 3: Hanger(str(sign)), 4: ConvChoice(2, 1, 4)}
    asked = itertools.count()
    clock = lambda: time.monotonic() + 1e6 * (sign.exists() and next(asked) > HEARD)  # noqa: E731
    with Pool(native(), 1, workers=1, patience=LONG, clock=clock) as pool:
        pool.submit(7, {i: (SPEC, choice) for i, choice in choices.items()})
        times: dict[int, Any] = {}
        while not times:
            times = dict(pool.wait(LONG))
        assert set(times) == {7}
        assert set(times[7]) == {0, 4}
        assert all(0 < seconds < 1 for seconds in times[7].values())
        pool.submit(8, {0: (SPEC, Killer())})
        assert finish(pool, 1) == {8: {}}, "nothing is left of it"


def test_workers_take_turns_and_one_that_is_killed_is_replaced() -> None:
    with Pool(native(), 1, workers=2) as pool:
        for name in range(2):
            pool.submit(name, {0: (SPEC, GOOD), 1: (SPEC, ConvChoice(2, 1, 4))})
        assert pool.free == 0
        assert {name: set(times) for name, times in finish(pool, 2).items()} == {0: {0, 1}, 1: {0, 1}}
        for pid in pool.processes[1:]:
            os.kill(pid, signal.SIGKILL)
        for name in range(2, 4):
            pool.submit(name, {0: (SPEC, GOOD)})
        assert {name: set(times) for name, times in finish(pool, 2).items()} == {2: {0}, 3: {0}}
        with all_end(pool.processes):
            pool.__exit__()


def test_a_pool_that_is_killed_is_an_error_that_says_so() -> None:
    with Pool(native(), 1, workers=1) as pool:
        job(pool)
        with all_end(pool.processes):
            os.kill(pool.processes[0], signal.SIGKILL)
        with pytest.raises(Unsupported, match="time kernels have ended: they were killed, or ran out of memory; what"):
            job(pool)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (sys.executable + "-that-is-not", "cannot start the processes that time kernels: .*-that-is-not"),
        ("/bin/cat", "the processes that time kernels have ended: .*help"),  # what it says last on stderr
    ],
)
def test_workers_that_do_not_come_up_say_why(monkeypatch: pytest.MonkeyPatch, program: str, message: str) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(Unsupported, match=message), Pool(native(), 1) as pool:
        job(pool)


PARENT = """
import sys
sys.path[:0] = {paths}
from secateur.codegen.tune.pool import Pool
from secateur.codegen.targets import native
from test_pool import SPEC, GOOD, Hanger
with Pool(native(), 1, workers=2) as pool:
    pool.submit(0, {{0: (SPEC, GOOD)}})
    pool.submit(1, {{0: (SPEC, GOOD)}})
    left = 2
    while left:
        left -= len(pool.wait(100))
    pool.submit(2, {{0: (SPEC, Hanger({sign!r}))}})
    pool.submit(3, {{0: (SPEC, Hanger({sign!r}))}})
    print(*pool.processes, flush=True)
    pool.wait(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux signals children when their parent ends")
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), *sys.path]
    script = PARENT.format(paths=paths, sign=str(tmp_path / "hangs"))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        with all_end(pids):
            parent.kill()
