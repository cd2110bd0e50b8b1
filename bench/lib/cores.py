"""What this machine gives of its cores, without which figures on several threads mean little.

    python -m bench.lib.cores

``share``: each core's speed while all work, over one core's alone. On a virtual machine two cores may be less than two:
neighbours take time from them, and power is shared. Each core runs a loop of its own for a twentieth of a second, in a
process bound to it; the count of rounds is compared with what the first core does alone, before and after.

``handover``: microseconds that one core takes to read 256 KB that another has just written. It depends on which caches
they share, and a virtual machine's cores are moved by its host.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np

SECONDS = 0.05
BYTES = 256 << 10


def rounds(seconds: float = SECONDS) -> int:
    """Rounds of a loop of arithmetic within so many seconds of the wall's clock."""
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        for _ in range(50):
            count += 1
    return count


def together(cores: Sequence[int]) -> list[int]:
    """What each of the cores does while all of them work."""
    pipes = [Pipe() for _ in cores]
    children = [_fork(core, theirs) for core, (_, theirs) in zip(cores, pipes, strict=True)]
    for ours, _ in pipes:
        ours.recv()  # every child is there
    for ours, _ in pipes:
        ours.send(None)
    found: list[int] = [ours.recv() for ours, _ in pipes]
    for child in children:
        os.waitpid(child, 0)
    return found


def _fork(core: int, channel: Connection) -> int:
    child = os.fork()
    if child == 0:
        os.sched_setaffinity(0, {core})
        channel.send(None)
        channel.recv()
        channel.send(rounds())
        os._exit(0)
    return child


def share() -> float:
    """The slowest core while all work, over one alone: 1 where the machine gives all that it promises."""
    cores = sorted(os.sched_getaffinity(0))
    alone = together(cores[:1])[0]
    all_of_them = min(together(cores))
    return all_of_them / max(alone, together(cores[:1])[0])


def handover(rounds: int = 60) -> float:
    """Median microseconds to sum what another core wrote a moment before. Both wait by looking, awake."""
    cores = sorted(os.sched_getaffinity(0))
    memory = mmap.mmap(-1, BYTES + mmap.PAGESIZE)
    turn, data = np.frombuffer(memory, np.int64, 1, BYTES), np.frombuffer(memory, np.float32, BYTES // 4)
    answer = np.frombuffer(memory, np.float64, 1, BYTES + 512)
    child = os.fork()
    os.sched_setaffinity(0, {cores[-1] if child == 0 else cores[0]})
    if child == 0:
        spent = []
        for i in range(rounds):
            while turn[0] != 2 * i + 1:
                pass
            start = time.perf_counter()
            data.sum()
            spent.append(time.perf_counter() - start)
            turn[0] = 2 * i + 2
        answer[0] = statistics.median(spent) * 1e6
        os._exit(0)
    for i in range(rounds):
        data[:] = i
        turn[0] = 2 * i + 1
        while turn[0] != 2 * i + 2:
            pass
    os.waitpid(child, 0)
    os.sched_setaffinity(0, cores)
    return float(answer[0])


if __name__ == "__main__":
    for _ in range(5):
        print(f"share {share():.2f}, handover {handover():.1f} us")
