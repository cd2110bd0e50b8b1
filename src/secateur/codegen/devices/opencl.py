"""OpenCL through the package pyopencl: any GPU with a driver for it, and processors through PoCL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from secateur.ir import InputError

from .code import ARENA, TABLES, WEIGHTS, AnyArray, Code

PACKAGE = "the package pyopencl (pip install 'secateur[opencl]')"
DRIVER = (
    "an OpenCL platform with a device (install the driver of the GPU; for a processor Debian's package pocl-opencl-icd)"
)


def missing() -> list[str]:
    """What this machine lacks to run OpenCL; nothing where a device is there."""
    try:
        import pyopencl
    except ImportError:
        return [PACKAGE]
    return [] if _devices(pyopencl) else [DRIVER]


def _devices(cl: Any) -> list[Any]:
    """All devices, GPUs first."""
    try:
        found = [device for platform in cl.get_platforms() for device in platform.get_devices()]
    except cl.Error:  # the loader says so where there is no platform
        return []
    return sorted(found, key=lambda device: not device.type & cl.device_type.GPU)


class OpenClSession:
    """Code on the first GPU that OpenCL knows, or its first device."""

    def __init__(self, code: Code, options: Sequence[str] = ()) -> None:
        """``options`` are further ones of the device's compiler.

        Raises InputError where there is no device, its compiler refuses the code, or its memory is too small.
        """
        if lacking := missing():
            raise InputError(f"cannot run an OpenCL library here: this machine lacks {lacking[0]}")
        import pyopencl as cl

        self._cl, self._code = cl, code
        self._device = _devices(cl)[0]
        most = max(kernel.items for kernel in code.kernels.values())
        if self._device.max_work_group_size < most:
            raise InputError(
                f"{self.device} runs {self._device.max_work_group_size} work items a group, the library needs {most}; "
                "build it for another target"
            )
        try:
            context = cl.Context([self._device])
            self._queue = cl.CommandQueue(context)
            program = cl.Program(context, code.source).build(options=["-cl-std=CL1.2", *options])
            read_only = cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR
            self._memories = {
                ARENA: cl.Buffer(context, cl.mem_flags.READ_WRITE, 4 * code.arena_words),
                WEIGHTS: cl.Buffer(context, read_only, hostbuf=code.weights),
                TABLES: cl.Buffer(context, read_only, hostbuf=code.tables),
            }
            self._context = context
            self._kernels = [cl.Kernel(program, one.kernel) for one in code.launches]
        except cl.Error as error:
            raise InputError(f"{self.device} cannot load the library: {_first_line(error)}") from error
        self._sizes: dict[str, int] = {}

    @property
    def device(self) -> str:
        """Its name."""
        return str(self._device.name).strip()

    def _port(self, name: str, nbytes: int) -> Any:
        """The device's memory for an input or output."""
        if self._sizes.get(name) != nbytes:
            self._memories[name] = self._cl.Buffer(self._context, self._cl.mem_flags.READ_WRITE, max(nbytes, 4))
            self._sizes[name] = nbytes
            for kernel, one in zip(self._kernels, self._code.launches, strict=True):
                if all(memory in self._memories for memory, _ in one.arguments):
                    kernel.set_args(
                        *(self._memories[memory] for memory, _ in one.arguments),
                        *(np.int32(at) for _, at in one.arguments),
                    )
        return self._memories[name]

    def run(self, inputs: Sequence[AnyArray], outputs: Sequence[AnyArray]) -> None:
        """Copy, launch in order, copy back."""
        with self._refusals():
            self._put(inputs, outputs)
            self._launch(self._queue)
            for name, array in zip(self._code.outputs, outputs, strict=True):
                if array.nbytes:
                    self._cl.enqueue_copy(self._queue, array, self._memories[name])
            self._queue.finish()

    def put(self, inputs: Sequence[AnyArray], outputs: Sequence[AnyArray]) -> None:
        """Copy the inputs there, make room for outputs like these."""
        with self._refusals():
            self._put(inputs, outputs)
            self._queue.finish()

    def launch(self) -> None:
        """Everything, in order."""
        with self._refusals():
            self._launch(self._queue)
            self._queue.flush()

    def wait(self) -> None:
        """Until all of it is done."""
        with self._refusals():
            self._queue.finish()

    def seconds(self) -> list[float]:
        """Of each launch in one run, from its begin to its end by the device's clock."""
        with self._refusals():
            self._queue.finish()  # what was launched before would run at the same time, in the same memory
            properties = self._cl.command_queue_properties.PROFILING_ENABLE
            queue = self._cl.CommandQueue(self._context, properties=properties)
            events = self._launch(queue)
            queue.finish()
            return [(event.profile.end - event.profile.start) / 1e9 for event in events]

    def _put(self, inputs: Sequence[AnyArray], outputs: Sequence[AnyArray]) -> None:
        code = self._code
        for name, array in [*zip(code.inputs, inputs, strict=True), *zip(code.outputs, outputs, strict=True)]:
            self._port(name, array.nbytes)
        for name, array in zip(code.inputs, inputs, strict=True):
            if array.nbytes:
                self._cl.enqueue_copy(self._queue, self._memories[name], array)

    def _launch(self, queue: Any) -> list[Any]:
        """The events of all launches."""
        events = []
        for kernel, one in zip(self._kernels, self._code.launches, strict=True):
            shape = self._code.kernels[one.kernel]
            size = (shape.grid[0] * shape.items, shape.grid[1], shape.grid[2])
            events.append(self._cl.enqueue_nd_range_kernel(queue, kernel, size, (shape.items, 1, 1)))
        return events

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What OpenCL refuses, as an InputError."""
        try:
            yield
        except self._cl.Error as error:
            raise InputError(f"{self.device} cannot run the library: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
