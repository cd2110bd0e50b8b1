"""A stream of CUDA's driver: what is launched on it, recorded once as a graph and replayed, and timed by its events.

Recording is CUDA's stream capture (CUDA C++ Programming Guide, "CUDA Graphs"): a replay costs the processor one call,
whatever the number of kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise

from .cuda_driver import Driver

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_*: what other threads do is no concern of a recording
_EXTERNAL = 1  # CU_EVENT_RECORD_EXTERNAL: the replay records the event, too
_GRAPHS = (
    "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch",
    "cuGraphDestroy", "cuGraphExecDestroy", "cuEventRecordWithFlags",
)  # fmt: skip

Step = Callable[[ctypes.c_void_p], None]  # launches something on a stream


class Stream:
    """Of the context that is current when it is opened. It and the default stream wait for each other.

    Steps are recorded on another one, for which the default stream does not wait: CUDA forbids all users of the process
    the default stream while a stream that waits for it is recorded.
    """

    def __init__(self, driver: Driver) -> None:
        """It holds nothing before ``open``."""
        self._driver = driver
        self._handle, self._recorder, self._replay = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self._graphs = driver.has(_GRAPHS)  # drivers before CUDA 11.4 lack some

    def open(self) -> None:
        """Raises InputError where the driver refuses, as all methods do but ``close``."""
        self._driver("cuStreamCreate", ctypes.byref(self._handle), 0)
        if self._graphs:
            self._driver("cuStreamCreate", ctypes.byref(self._recorder), _NON_BLOCKING)

    def run(self, step: Step) -> None:
        """A step, recorded the first time and replayed from then on, until ``forget``; launched without graphs."""
        if not self._graphs:
            step(self._handle)
            return
        if not self._replay:
            self._replay = self._recorded([step])
        self._driver("cuGraphLaunch", self._replay, self._handle)

    def wait(self) -> None:
        """Until all that was launched is done."""
        self._driver("cuStreamSynchronize", self._handle)

    def forget(self) -> None:
        """The recorded step: memory that it refers to is about to go."""
        if self._replay:
            self._driver("cuGraphExecDestroy", self._replay)
            self._replay = ctypes.c_void_p()

    def seconds(self, steps: Sequence[Step]) -> list[float]:
        """Of each step, in one run of all, by events between them: with the time from one kernel to the next."""
        events = [ctypes.c_void_p() for _ in range(len(steps) + 1)]
        try:
            for event in events:
                self._driver("cuEventCreate", ctypes.byref(event), 0)
            marks = [self._mark(event) for event in events]
            self._once([marks[0], *(s for step, mark in zip(steps, marks[1:], strict=True) for s in (step, mark))])
            return [self._between(*both) for both in pairwise(events)]
        finally:
            for event in events:
                if event:
                    self._driver.library.cuEventDestroy_v2(event)

    def close(self) -> None:
        """Give back what it holds. A driver that refuses is on its way out."""
        if self._replay:
            self._driver.library.cuGraphExecDestroy(self._replay)
        for stream in (self._recorder, self._handle):
            if stream:
                self._driver.library.cuStreamDestroy_v2(stream)

    def _once(self, steps: Sequence[Step]) -> None:
        """As a graph where there are graphs: else the time of the processor's calls would be measured with it."""
        if not self._graphs:
            for step in steps:
                step(self._handle)
            self.wait()
            return
        replay = self._recorded(steps)
        try:
            for _ in range(2):  # the first replay takes the graph to the device
                self._driver("cuGraphLaunch", replay, self._handle)
            self.wait()
        finally:
            self._driver.library.cuGraphExecDestroy(replay)

    def _recorded(self, steps: Sequence[Step]) -> ctypes.c_void_p:
        """Steps as what can be replayed. Whatever fails says so itself: giving back is not asked whether it worked."""
        graph, replay = ctypes.c_void_p(), ctypes.c_void_p()
        try:
            self._record(steps, graph)
            self._driver("cuGraphInstantiateWithFlags", ctypes.byref(replay), graph, ctypes.c_ulonglong(0))
        finally:
            if graph:
                self._driver.library.cuGraphDestroy(graph)
        return replay

    def _record(self, steps: Sequence[Step], graph: ctypes.c_void_p) -> None:
        """Into ``graph``. After a step that failed there may be one as well."""
        self._driver("cuStreamBeginCapture_v2", self._recorder, _THREAD_LOCAL)
        try:
            for step in steps:
                step(self._recorder)
        except BaseException:
            self._driver.library.cuStreamEndCapture(self._recorder, ctypes.byref(graph))
            raise
        self._driver("cuStreamEndCapture", self._recorder, ctypes.byref(graph))

    def _mark(self, event: ctypes.c_void_p) -> Step:
        def mark(stream: ctypes.c_void_p) -> None:
            if self._graphs:
                self._driver("cuEventRecordWithFlags", event, stream, _EXTERNAL)
            else:
                self._driver("cuEventRecord", event, stream)

        return mark

    def _between(self, first: ctypes.c_void_p, last: ctypes.c_void_p) -> float:
        milliseconds = ctypes.c_float()
        self._driver("cuEventElapsedTime", ctypes.byref(milliseconds), first, last)
        return milliseconds.value / 1e3
