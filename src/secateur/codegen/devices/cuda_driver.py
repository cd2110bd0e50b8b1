"""NVIDIA's driver as a library of C: calls by name, and what it says of those that it refuses."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

from secateur.ir import InputError

DRIVER = "libcuda.so.1"  # comes with NVIDIA's driver

Loader = Callable[[str], Any]


class Driver:
    """The driver of this machine. Raises OSError where there is none."""

    def __init__(self, load: Loader = ctypes.CDLL) -> None:
        self.library = load(DRIVER)

    def has(self, names: Iterable[str]) -> bool:
        """Whether it is new enough for all of these."""
        return all(hasattr(self.library, name) for name in names)

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises InputError with the driver's own words where it refuses."""
        status = int(getattr(self.library, name)(*arguments))
        if status:
            text = ctypes.c_char_p()
            self.library.cuGetErrorString(status, ctypes.byref(text))
            why = (text.value or b"").decode(errors="replace") or f"error {status}"
            raise InputError(f"the GPU cannot run the library: {name} says '{why}'")
