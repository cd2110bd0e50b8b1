"""The CUDA driver's interface, spoken to a driver of Python: no GPU is needed, and none was at hand."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from secateur import InputError
from secateur.codegen.devices.cuda import CudaSession, missing
from support.cuda import CODE, CONTEXT, Driver, Old


def test_launches_pass_memories_and_offsets_in_order() -> None:
    driver = Driver()
    session = CudaSession(CODE, "sm_90", lambda name: driver)
    x, y = np.arange(5, dtype=np.float32), np.empty(4, np.float32)
    for _ in range(2):
        session.run([x], [y])
        assert y.tolist() == [7, 8, 9, 10]
    assert session.device == "a device"
    del session
    assert driver.freed == 5
    assert not (driver.kept or driver.streams)


def test_launches_are_recorded_once_and_replayed() -> None:
    driver = Driver()
    session = CudaSession(CODE, "sm_90", lambda name: driver)
    x, y = np.arange(5, dtype=np.float32), np.empty(4, np.float32)
    for turn in range(3):
        session.run([x + turn], [y])
        assert y.tolist() == [7 + turn, 8 + turn, 9 + turn, 10 + turn]
    assert driver.calls["replays"] == 3
    assert not driver.calls["launch"]
    assert len(driver.graphs) == 1
    long = np.empty(8, np.float32)  # the memory of the output is another one, so the graph is, too
    session.run([x], [long])
    assert long[:4].tolist() == [7, 8, 9, 10]
    assert len(driver.graphs) == 1
    del session
    assert not driver.graphs


@pytest.mark.parametrize("kind", [Driver, Old])
def test_each_launch_is_timed_by_events(kind: type[Driver]) -> None:
    """On a driver without graphs as well, where all launches are calls."""
    driver = kind()
    session = CudaSession(CODE, "sm_90", lambda name: driver)
    x, y = np.arange(5, dtype=np.float32), np.empty(4, np.float32)
    session.run([x], [y])
    assert y.tolist() == [7, 8, 9, 10]
    assert session.seconds() == pytest.approx([4e-3, 4e-3])
    assert driver.calls["launch"] == (0 if kind is Driver else 4)
    assert len(driver.graphs) == (1 if kind is Driver else 0)


class Refusing(Driver):
    """Refuses the second kernel of a recording, as long as that is asked of it. The recording may be lost with it."""

    refuses, lost = True, False

    def cuLaunchKernel(self, function: Any, *rest: Any) -> int:
        begun = any(self.recording.values())
        return 1 if self.refuses and begun else super().cuLaunchKernel(function, *rest)

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        if not (self.refuses and self.lost):
            return super().cuStreamEndCapture(stream, graph)
        del self.recording[stream.value]
        return 901


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("timed", [False, True])
def test_a_recording_that_fails_says_why_and_leaves_nothing(lost: bool, timed: bool) -> None:
    driver = Refusing()
    driver.lost = lost
    session = CudaSession(CODE, "sm_90", lambda name: driver)
    x, y = np.arange(5, dtype=np.float32), np.empty(4, np.float32)
    session.put([x], [y])
    with pytest.raises(InputError, match="cuLaunchKernel says 'invalid argument'"):
        (session.seconds if timed else session.launch)()
    assert not (driver.graphs or driver.recording or driver.times)
    driver.refuses = False
    session.run([x], [y])
    assert y.tolist() == [7, 8, 9, 10]


def test_a_session_works_after_others_changed_the_context_of_the_thread() -> None:
    driver = Driver()
    session = CudaSession(CODE, "sm_90", lambda name: driver)
    session.put([np.arange(5, dtype=np.float32)], [np.empty(4, np.float32)])
    for use in (session.launch, session.seconds, session.wait):
        driver.current = 8
        use()
        assert driver.current == CONTEXT


def test_memory_that_was_refused_is_asked_for_again() -> None:
    driver = Driver()
    session = CudaSession(CODE, "sm_90", lambda name: driver)
    x, y = np.arange(5, dtype=np.float32), np.empty(4, np.float32)
    session.run([x], [y])
    with pytest.raises(InputError, match="cuMemAlloc_v2 says 'out of memory'"):
        session.run([x], [np.empty(1 << 20, np.float32)])
    session.run([x], [y])
    assert y.tolist() == [7, 8, 9, 10]


def test_what_a_session_held_is_given_back_though_it_could_not_begin() -> None:
    class Full(Driver):
        """No second stream."""

        def cuStreamCreate(self, stream: Any, flags: int) -> int:
            return 2 if self.streams else super().cuStreamCreate(stream, flags)

        def cuDevicePrimaryCtxRelease(self, index: int) -> int:
            self.calls["releases"] += 1
            return 0

    driver = Full()
    with pytest.raises(InputError, match="cuStreamCreate says 'out of memory'"):
        CudaSession(CODE, "sm_90", lambda name: driver)
    gc.collect()
    assert not driver.streams
    assert driver.calls["releases"] == 1


def test_what_is_missing_is_said() -> None:
    def absent(name: str) -> Any:
        raise OSError(name)

    assert missing("sm_90", absent) == ["NVIDIA's driver (libcuda.so.1)"]
    assert missing("sm_90", lambda name: Driver(count=0)) == ["a GPU that NVIDIA's driver can use"]
    assert "it has sm_80" in missing("sm_90", lambda name: Driver((8, 0)))[0]
    assert not missing("sm_80", lambda name: Driver((8, 7)))
    assert missing("sm_87", lambda name: Driver((8, 0)))
    with pytest.raises(InputError, match="this machine lacks a GPU that"):
        CudaSession(CODE, "sm_90", lambda name: Driver(count=0))


def test_what_the_driver_refuses_is_said() -> None:
    with pytest.raises(InputError, match="the GPU cannot run the library: cuMemAlloc_v2 says 'out of memory'"):
        CudaSession(CODE, "sm_90", lambda name: Driver(memory=16))
