"""Peak memory of a process that only loads a network and runs it.

    python -m bench.lib.memory secateur|onnxruntime FOLDER THREADS      prints one JSON object; FOLDER is prepare.py's

``imports`` is the resident size once the runtime's Python package is imported, ``peak`` the largest there ever was
(VmHWM of /proc, which a process begins anew). Torch is hidden: TVM's packages import it where it is installed, and a
machine that only runs libraries does not have it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from bench.lib.runtimes import RUNTIMES
from bench.lib.serving import Place

RUNS = 5
IMPORTS = {"secateur": "secateur", "onnxruntime": "onnxruntime"}


def resident(field: str) -> int:
    """A size of this process in bytes: VmRSS, now, or VmHWM, the largest so far."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    """Load, run, print."""
    runtime, folder, threads = sys.argv[1:]
    sys.modules["torch"] = None  # type: ignore[assignment]  # importing it fails as if it were not installed
    __import__(IMPORTS[runtime])
    imports = resident("VmRSS")
    loaded = RUNTIMES[runtime](Place(Path(folder), int(threads)))
    for _ in range(RUNS):
        loaded.run()
    print(json.dumps({"imports": imports, "peak": resident("VmHWM")}))


if __name__ == "__main__":
    main()
