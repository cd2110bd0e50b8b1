"""TVM's runtime without its compiler: what a finished library needs in a process, and no more.

``tvm_ffi`` imports torch wherever it is installed, which costs a second and 200 MB; a library has no use for it, so it
is not found while ``tvm_ffi`` loads. Torch tensors that come later are taken through DLPack all the same.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

SHARE_CORES = -3  # TVM's kSpecifyThreadShareAllCore: threads run on any core of the list, as the caller's own do


@cache
def ffi() -> ModuleType:
    """The module ``tvm_ffi``, with TVM's runtime library loaded. TVM's compiler can still be imported later."""
    with _hidden("torch"):
        import tvm_ffi
    if "tvm" not in sys.modules:
        spec = find_spec("tvm")
        assert spec is not None and spec.submodule_search_locations is not None
        folders = [Path(place) / "lib" for place in spec.submodule_search_locations]
        tvm_ffi.libinfo.load_lib_ctypes("tvm", "tvm_runtime", "RTLD_GLOBAL", extra_lib_paths=folders)
    return tvm_ffi


class _Hide(MetaPathFinder):
    """Tells one thread that a package is not installed."""

    def __init__(self, name: str) -> None:
        self.name, self.thread = name, threading.get_ident()

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == self.name and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(f"'{fullname}' is not looked for here", name=fullname)


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    finder = _Hide(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def cores() -> list[int]:
    """The numbers of the cores that this thread may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


# How often a worker looks for work before it sleeps, and before it ends. Each look yields its core, for milliseconds
# where that is busy: TVM's own 300,000 keep a process from ending for minutes there, and a core from resting for a
# tenth of a second after each run elsewhere.
LOOKS = "1000"

_pool = threading.local()  # TVM has a pool for each calling thread, and so has this note of its size


@cache
def _home() -> int:
    """The process in which a library first ran on several threads."""
    return os.getpid()


def use_threads(threads: int) -> None:
    """Let parallel loops that this thread calls use so many threads, and at most as many as there are cores.

    Left to itself TVM takes half of the cores on x86 and binds the caller to them for good. A pool's size is settled
    when it is first used, so it gets all cores' workers (they sleep), of which ``threads`` are used.

    The workers are not in a process that is forked afterwards, which would wait for them for ever: there the caller
    does all of the work.
    """
    if threads == 1:
        return
    here = os.getpid()
    settled = (here, threads if here == _home() else 1)
    if getattr(_pool, "settled", None) == settled:
        return
    allowed = cores()
    used = allowed if here == _home() else allowed[:1]
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", LOOKS)  # TVM reads it when its first worker starts
    ffi().get_global_func("runtime.config_threadpool")(SHARE_CORES, settled[1], [str(core) for core in used])
    if used != allowed:
        os.sched_setaffinity(0, allowed)
    _pool.settled = settled
