"""A stand-in for NVIDIA's driver in Python, and launches for it."""

from __future__ import annotations

import ctypes
from collections import Counter
from typing import Any

import numpy as np

from secateur.codegen.devices.code import Code, Kernel, Launch

CONTEXT, NON_BLOCKING = 7, 1
WORDS = {1: b"invalid argument", 2: b"out of memory", 201: b"invalid device context"}
SILENT = frozenset({"cuModuleLoadData", "cuModuleGetFunction", "cuModuleUnload", "cuDevicePrimaryCtxRelease"})


class Driver:
    """Memory of ctypes, one device, and a kernel that adds: ``y[i] = x[i] + w[0]`` for the work items of its grid.

    It refuses what takes its context while another is current, and to record streams for which the default one waits.
    """

    def __init__(self, version: tuple[int, int] = (9, 0), count: int = 1, memory: int = 1 << 20) -> None:
        self.version, self.count, self.memory = version, count, memory
        self.kept: dict[int, Any] = {}
        self.freed = 0
        self.current: int | None = None
        self.streams: dict[int, int] = {}  # flags
        self.recording: dict[int, list[tuple[Any, ...]]] = {}  # by stream
        self.graphs: dict[int, list[tuple[Any, ...]]] = {}
        self.calls: Counter[str] = Counter()
        self.clock = 0.0
        self.times: dict[int, float] = {}

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, index: int) -> int:
        value._obj.value = self.version[attribute - 75]
        return 0

    def cuDeviceGetName(self, text: Any, size: int, index: int) -> int:
        text.value = b"a device"
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, index: int) -> int:
        context._obj.value = CONTEXT
        return 0

    def cuCtxSetCurrent(self, context: ctypes.c_void_p) -> int:
        self.current = context.value
        return 0

    @property
    def status(self) -> int:
        """Of a call that takes the context: CUDA_ERROR_INVALID_CONTEXT in another one."""
        return 0 if self.current == CONTEXT else 201

    def cuMemAlloc_v2(self, pointer: Any, size: ctypes.c_size_t) -> int:
        if size.value > self.memory:
            return 2
        room = ctypes.create_string_buffer(size.value)
        self.kept[ctypes.addressof(room)] = room
        pointer._obj.value = ctypes.addressof(room)
        return 0

    def cuMemFree_v2(self, pointer: ctypes.c_uint64) -> int:
        self.freed += 1
        del self.kept[pointer.value]
        return 0

    def cuMemcpyHtoD_v2(self, to: ctypes.c_uint64, source: ctypes.c_void_p, size: ctypes.c_size_t) -> int:
        ctypes.memmove(to.value, source.value or 0, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, to: ctypes.c_void_p, source: ctypes.c_uint64, size: ctypes.c_size_t) -> int:
        ctypes.memmove(to.value or 0, source.value, size.value)
        return 0

    def cuLaunchKernel(self, function: Any, *rest: Any) -> int:
        parameters = rest[8]
        memories = [ctypes.cast(parameters[i], ctypes.POINTER(ctypes.c_uint64))[0] for i in range(3)]
        at = [ctypes.cast(parameters[i], ctypes.POINTER(ctypes.c_int32))[0] for i in range(3, 6)]
        return self.done(rest[7], "launch", memories, at, rest[0] * rest[3])

    def done(self, stream: ctypes.c_void_p, what: str, *values: Any) -> int:
        """Do it, or record it with the values that it has now."""
        assert stream.value is not None
        if stream.value in self.recording:
            self.recording[stream.value].append((what, *values))
        else:
            self.calls[what] += 1
            getattr(self, what)(*values)
        return self.status

    def launch(self, memories: list[int], at: list[int], count: int) -> None:
        self.clock += count  # a millisecond each
        data = [ctypes.cast(memory, ctypes.POINTER(ctypes.c_float)) for memory in memories]
        for i in range(count):
            data[2][at[2] + i] = data[0][at[0] + i] + data[1][at[1]]

    def mark(self, event: int) -> None:
        self.times[event] = self.clock

    def cuStreamCreate(self, stream: Any, flags: int) -> int:
        self.calls["streams"] += 1
        self.streams[self.calls["streams"]] = flags
        stream._obj.value = self.calls["streams"]
        return 0

    def cuStreamDestroy_v2(self, stream: ctypes.c_void_p) -> int:
        assert stream.value is not None
        del self.streams[stream.value]
        return 0

    def cuStreamSynchronize(self, stream: Any) -> int:
        return self.status

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:
        if self.streams[stream.value] != NON_BLOCKING:
            return 1
        self.recording[stream.value] = []
        return self.status

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        graph._obj.value = self.named(self.recording.pop(stream.value))
        return 0

    def cuGraphInstantiateWithFlags(self, replay: Any, graph: Any, flags: Any) -> int:
        replay._obj.value = self.named(self.graphs[graph.value])
        return 0

    def named(self, graph: list[tuple[Any, ...]]) -> int:
        self.calls["graphs"] += 1
        self.graphs[self.calls["graphs"]] = graph
        return self.calls["graphs"]

    def cuGraphLaunch(self, replay: Any, stream: Any) -> int:
        if self.streams[stream.value] == NON_BLOCKING:  # the default stream, which copies, would not wait for it
            return 1
        self.calls["replays"] += 1
        for what, *values in self.graphs[replay.value]:
            getattr(self, what)(*values)
        return self.status

    def cuGraphDestroy(self, graph: Any) -> int:
        del self.graphs[graph.value]
        return 0

    def cuGraphExecDestroy(self, replay: Any) -> int:
        del self.graphs[replay.value]
        return 0

    def cuEventCreate(self, event: Any, flags: int) -> int:
        self.calls["events"] += 1
        event._obj.value = self.calls["events"]
        self.times[self.calls["events"]] = 0.0
        return self.status

    def cuEventDestroy_v2(self, event: ctypes.c_void_p) -> int:
        assert event.value is not None
        del self.times[event.value]
        return 0

    def cuEventRecord(self, event: Any, stream: Any) -> int:
        return self.done(stream, "mark", event.value)

    def cuEventRecordWithFlags(self, event: Any, stream: Any, flags: int) -> int:
        return self.done(stream, "mark", event.value) if flags == 1 else 1

    def cuEventElapsedTime(self, milliseconds: Any, first: Any, last: Any) -> int:
        milliseconds._obj.value = self.times[last.value] - self.times[first.value]
        return 0

    def cuGetErrorString(self, status: int, text: Any) -> int:
        text._obj.value = WORDS.get(status, b"")
        return 0

    def __getattr__(self, name: str) -> Any:
        if name not in SILENT:
            raise AttributeError(name)
        return lambda *_: 0


class Old(Driver):
    """Of the time before graphs."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cuGraph"):
            raise AttributeError(name)
        return super().__getattribute__(name)


CODE = Code(
    "", {"add": Kernel((2, 1, 1), 2)},
    [Launch("add", (("input:x", 1), ("weights", 3), ("arena", 64))),
     Launch("add", (("arena", 64), ("weights", 3), ("output:0", 0)))],
    ["input:x"], ["output:0"], np.arange(16, dtype=np.float32), np.zeros(16, np.int32), 128, b"cubin",
)  # fmt: skip
