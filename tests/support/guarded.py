"""Memory between two pages that may not be touched: a read or write beyond an array's end ends the process at once."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LIBC = ctypes.CDLL(None, use_errno=True)
_PAGE = mmap.PAGESIZE


def guarded(array: NDArray[Any], align: int = 1) -> NDArray[Any]:
    """A copy whose last byte lies before a forbidden page, or within ``align`` bytes of one.

    With ``align=1`` an array of floats begins at any multiple of its item's size, as a caller's memory may.
    """
    room = -(-array.nbytes // align) * align
    pages = -(-room // _PAGE) + 1
    memory = mmap.mmap(-1, (pages + 1) * _PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (start, start + pages * _PAGE):
        if _LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    found = np.frombuffer(memory, array.dtype, array.size, pages * _PAGE - room).reshape(array.shape)
    found[...] = array
    return found
