"""A process that only loads a network and runs it: its seconds from the start, and its memory.

    python -m bench.lib.alone RUNTIME FOLDER THREADS BEGUN      prints one JSON object; FOLDER is prepare.py's

``imports`` is the resident size once the runtime's Python package is imported, ``peak`` the largest there ever was
(VmHWM of /proc, which a process begins anew). ``seconds``, one after the other: ``python`` from BEGUN, a reading of
``time.perf_counter`` in the process that started this one, ``import`` of the runtime's package, ``load`` of the
network, the ``first`` run and ``again``. Torch is hidden: TVM's packages import it where it is installed, and a machine
that only runs libraries does not have it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from bench.lib import engines

RUNS = 5
IMPORTS = {"secateur": "secateur", "onnxruntime": "onnxruntime", "openvino": "openvino"}


def measured(runtime: str, folder: Path, threads: int) -> dict[str, Any]:
    """What such a process prints. Raises ValueError with what it printed last where it fails."""
    from bench.lib import common
    from bench.lib.turns import environment

    command = [environment(runtime)[0], "-m", "bench.lib.alone", runtime, str(folder), str(threads)]
    done = common.run([*command, repr(time.perf_counter())], threads=threads)
    if done.code != 0:
        raise ValueError(f"{runtime}: {done.stderr[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def resident(field: str) -> int:
    """A size of this process in bytes: VmRSS, now, or VmHWM, the largest so far."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    """Load, run, print."""
    runtime, folder, threads, begun = sys.argv[1:]
    sys.modules["torch"] = None  # type: ignore[assignment]  # importing it fails as if it were not installed
    from bench.lib.serving import Place  # with NumPy, which all of them need

    if engines.serving(runtime) is None:
        from bench.lib.runtimes import RUNTIMES
    else:
        from bench.lib.engine_runtimes import RUNTIMES
    times = [float(begun), time.perf_counter()]
    __import__(IMPORTS[runtime])
    times.append(time.perf_counter())
    imports = resident("VmRSS")
    loaded = RUNTIMES[runtime](Place(Path(folder), int(threads)))
    times.append(time.perf_counter())
    for _ in range(RUNS):
        loaded.run()
        times.append(time.perf_counter())
    steps = ("python", "import", "load", "first", "again")
    seconds = {step: after - before for step, before, after in zip(steps, times, times[1:], strict=False)}
    print(json.dumps({"imports": imports, "peak": resident("VmHWM"), "seconds": seconds}))


if __name__ == "__main__":
    main()
