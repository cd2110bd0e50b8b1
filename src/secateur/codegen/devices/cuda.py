"""CUDA through the driver's own interface, by ctypes: it takes the driver and nothing else."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from secateur.ir import InputError

from .code import ARENA, TABLES, WEIGHTS, AnyArray, Code, Launch
from .cuda_driver import DRIVER, Driver, Loader
from .cuda_stream import Stream

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


def missing(arch: str, load: Loader = ctypes.CDLL) -> list[str]:
    """What this machine lacks to run code for an architecture such as sm_90; nothing where such a GPU is there."""
    try:
        driver = Driver(load).library
    except OSError:
        return [f"NVIDIA's driver ({DRIVER})"]
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return ["a GPU that NVIDIA's driver can use"]
    found = [capability(driver, i) for i in range(count.value)]
    return [] if _fitting(found, arch) is not None else [f"a GPU that runs code for {arch} (it has {_named(found)})"]


def capability(driver: Any, index: int) -> tuple[int, int]:
    """Major and minor version of what a device computes."""
    values = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, index)
        values.append(value.value)
    return values[0], values[1]


def _fitting(found: Sequence[tuple[int, int]], arch: str) -> int | None:
    """The first device for this code: of the same major version, and no older."""
    major, minor = divmod(int(arch.removeprefix("sm_")), 10)
    return next((i for i, (a, b) in enumerate(found) if a == major and b >= minor), None)


def _named(found: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"sm_{major}{minor}" for major, minor in found)


class CudaSession:
    """Code on the first GPU that runs it, in the context that other libraries of the process use as well."""

    def __init__(self, code: Code, arch: str, load: Loader = ctypes.CDLL) -> None:
        """Raises InputError where there is no such device, or its memory is too small."""
        if lacking := missing(arch, load):
            raise InputError(f"cannot run a library for cuda:{arch} here: this machine lacks {lacking[0]}")
        self._call, self._code = Driver(load), code
        driver, count = self._call.library, ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        index = _fitting([capability(driver, i) for i in range(count.value)], arch)
        assert index is not None
        self._context, self._module = ctypes.c_void_p(), ctypes.c_void_p()
        self._index, self._stream = index, Stream(self._call)
        self._memories: dict[str, ctypes.c_uint64] = {}
        self._sizes: dict[str, int] = {}
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), index)
        weakref.finalize(self, _release, driver, self._context, self._module, self._memories, self._stream, index)
        self._enter()
        self._stream.open()
        self._call("cuModuleLoadData", ctypes.byref(self._module), code.binary)
        self._functions = {name: self._function(name) for name in code.kernels}
        self._memory(ARENA, 4 * code.arena_words)
        for name, constants in ((WEIGHTS, code.weights), (TABLES, code.tables)):
            self._copy_in(name, np.ascontiguousarray(constants))

    @property
    def device(self) -> str:
        """Its name."""
        text = ctypes.create_string_buffer(128)
        self._call("cuDeviceGetName", text, 128, self._index)
        return text.value.decode(errors="replace")

    def _enter(self) -> None:
        """Make its context that of this thread, which may be in the one of another library, or in none."""
        self._call("cuCtxSetCurrent", self._context)

    def _function(self, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        self._call("cuModuleGetFunction", ctypes.byref(function), self._module, name.encode())
        return function

    def _memory(self, name: str, nbytes: int) -> ctypes.c_uint64:
        if self._sizes.get(name) != nbytes:
            if name in self._memories:
                self._stream.forget()
                del self._sizes[name]
                self._call("cuMemFree_v2", self._memories.pop(name))
            pointer = ctypes.c_uint64()
            self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(nbytes, 4)))
            self._memories[name], self._sizes[name] = pointer, nbytes
        return self._memories[name]

    def _copy_in(self, name: str, array: AnyArray) -> None:
        memory = self._memory(name, array.nbytes)
        if array.nbytes:
            self._call("cuMemcpyHtoD_v2", memory, ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))

    def run(self, inputs: Sequence[AnyArray], outputs: Sequence[AnyArray]) -> None:
        """Copy, launch in order, copy back."""
        self.put(inputs, outputs)
        self.launch()
        for name, array in zip(self._code.outputs, outputs, strict=True):
            if array.nbytes:
                self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), self._memories[name],
                           ctypes.c_size_t(array.nbytes))  # fmt: skip

    def put(self, inputs: Sequence[AnyArray], outputs: Sequence[AnyArray]) -> None:
        """Copy the inputs there, make room for outputs like these."""
        self._enter()
        for name, array in zip(self._code.inputs, inputs, strict=True):
            self._copy_in(name, array)
        for name, array in zip(self._code.outputs, outputs, strict=True):
            self._memory(name, array.nbytes)

    def launch(self) -> None:
        """Everything, in order: replayed as a graph where the driver has graphs."""
        self._enter()
        self._stream.run(self._launch_all)

    def wait(self) -> None:
        """Until all of it is done."""
        self._enter()
        self._stream.wait()

    def seconds(self) -> list[float]:
        """Of each launch in one run, by CUDA's events."""
        self._enter()
        return self._stream.seconds([partial(self._launch, one) for one in self._code.launches])

    def _launch_all(self, stream: ctypes.c_void_p) -> None:
        for one in self._code.launches:
            self._launch(one, stream)

    def _launch(self, one: Launch, stream: ctypes.c_void_p) -> None:
        kernel = self._code.kernels[one.kernel]
        values = [*(self._memories[memory] for memory, _ in one.arguments),
                  *(ctypes.c_int32(at) for _, at in one.arguments)]  # fmt: skip
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        self._call("cuLaunchKernel", self._functions[one.kernel], *kernel.grid, kernel.items, 1, 1, 0, stream,
                   pointers, None)  # fmt: skip


def _release(driver: Any, context: ctypes.c_void_p, module: ctypes.c_void_p,
             memories: dict[str, ctypes.c_uint64], stream: Stream, index: int) -> None:  # fmt: skip
    """Give back what a session holds."""
    driver.cuCtxSetCurrent(context)
    stream.close()
    for memory in memories.values():
        driver.cuMemFree_v2(memory)
    if module:
        driver.cuModuleUnload(module)
    driver.cuDevicePrimaryCtxRelease(index)
