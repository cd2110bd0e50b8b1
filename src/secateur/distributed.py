"""One command run by several processes at once, as ``torchrun`` starts them.

Each takes its share of the calibration data, and all make the same network. The first writes and prints; where one
fails, it alone says why, and the others end without a word. This is the only place that reads what a launcher says of
itself, which is not configuration: the processes cannot find each other without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.ir import InputError, PassError

FAILURES = "secateur/failures"


@dataclass(frozen=True)
class Team:
    """This process among those of the command: its ``rank`` from 0, and how many there are."""

    rank: int = 0
    size: int = 1
    store: Any = field(default=None, repr=False)

    @property
    def speaks(self) -> bool:
        """Is this the process that prints and writes?"""
        return self.rank == 0

    def first_to_fail(self) -> bool:
        """Should this process say why it failed? Those that fail because another did should not."""
        if self.store is None:
            return True
        try:
            return int(self.store.add(FAILURES, 1)) == 1
        except RuntimeError:  # whoever kept the store is gone, perhaps without a word
            return True

    def agree(self, text: Callable[[], str]) -> None:
        """Wait for the others. Raises PassError where they have another text than this process, or have ended.

        The text is made only where there are others.
        """
        if self.size == 1:
            return
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(found, hashlib.sha256(text().encode()).hexdigest())
        except RuntimeError as error:
            raise PassError("another process of this run ended early; what it printed says why") from error
        if len(set(found)) > 1:
            raise PassError(
                "the processes of this run chose different channels, so nothing was written; start them with the same "
                "files and versions, on like machines"
            )


def launched(environment: Mapping[str, str] = os.environ) -> Team:
    """What the launcher says: alone without one. Raises InputError for numbers that make no sense."""
    rank, size = environment.get("RANK"), environment.get("WORLD_SIZE")
    if rank is None or size is None:
        return Team()
    if not (rank.isdigit() and size.isdigit() and int(rank) < int(size)):
        raise InputError(f"the launcher's RANK={rank} and WORLD_SIZE={size} do not fit; start it with torchrun")
    return Team(int(rank), int(size))


@contextlib.contextmanager
def together(team: Team) -> Iterator[Team]:
    """The processes find each other, by gloo, and part in the end. Raises InputError where they do not."""
    if team.size == 1:
        yield team
        return
    import torch.distributed as dist

    try:
        dist.init_process_group("gloo")
        store = dist.distributed_c10d._get_default_store()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{team.size} processes were started but cannot reach each other: {error}") from error
    try:
        yield Team(team.rank, team.size, store)
    finally:
        dist.destroy_process_group()
