"""How much of its cores this machine gives: each core's speed while all work, over one core's alone.

On a virtual machine two cores may be less than two: neighbours take time from them, and power is shared. Figures on
several threads mean little without this number beside them. Each core runs a loop of its own for a twentieth of a
second, in a process bound to it; the count of rounds is compared with what the first core does alone. ``alone`` is
measured before and after, and the better one counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection

SECONDS = 0.05


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


if __name__ == "__main__":
    for _ in range(5):
        print(f"{share():.2f}")
