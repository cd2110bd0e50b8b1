"""Do kernels for GPUs compute what torch does? Without a GPU, and nothing is said of their speed.

    python -m bench.reach.gpu [templates] [races] [cubins] [networks] [--only GLOB]

``templates``: every case of ``gpu_cases.py`` by PoCL; ``races``: the same interpreted by Oclgrind, which reports data
races, places out of bounds and barriers that not all work items come to; ``cubins``: all of them by nvcc, for four
architectures; ``networks``: twelve whole networks on images of 64x64 by PoCL, two of them pruned to half of their
multiply-accumulates. Right means within 1e-4 of the output's largest value. Needs Debian's packages pocl-opencl-icd and
oclgrind, and the extras [opencl] and [cuda]. PYOPENCL_BUILD_OPTIONS=-cl-opt-disable spares PoCL its optimiser, which
takes most of the time.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.lib import common
from bench.lib.gpu_networks import SHARES, subject
from bench.reach.emulated_cases import Case
from bench.reach.gpu_cases import GPU_CASES, TINY
from bench.speed.libraries import distance

SIDE, LIMIT = 64, 1e-4
LOCAL = "131072"  # Oclgrind counts the shared memory of a group more than once
INTERPRET = """
import sys, numpy as np
from secateur.codegen.gpu_library import load_library
given = np.load(sys.argv[2])
found = load_library(sys.argv[1])(*(given[k] for k in given.files))
np.savez(sys.argv[3], *(found if isinstance(found, tuple) else (found,)))
"""

Row = common.Row


def graph_of(case: Case, name: str) -> tuple[Any, tuple[Any, ...], list[Any]]:
    """A case's graph, its inputs, and what torch computes of them."""
    from secateur.ir.exporters.torch.module import evaluate
    from secateur.ir.frontends.torch.trace import trace

    inputs = case.inputs()
    graph, arrays = trace(case.module(), inputs, name=name), tuple(x.numpy() for x in inputs)
    wanted = evaluate(graph, dict(zip((v.name for v in graph.inputs), arrays, strict=True)))
    return graph, arrays, list(wanted)


def error_of(found: Any, wanted: list[Any]) -> float:
    """The largest difference over the largest value, of all outputs."""
    return distance(list(found) if isinstance(found, tuple) else [found], wanted)


def templates(only: str) -> Iterator[Row]:
    """Every case by PoCL. One whose library lacks the family that it is there for is wrong."""
    from secateur import codegen

    for name, case in {**GPU_CASES, **{f"tiny: {name}": case for name, case in TINY.items()}}.items():
        if fnmatch.fnmatch(name, only):
            graph, inputs, wanted = graph_of(case, name)
            library = codegen.build(graph, "opencl")
            error, kernels = error_of(library(*inputs), wanted), dict(library.metadata.kernels)
            right = error <= LIMIT and set(case.families) <= set(kernels)
            yield {"kind": "template", "case": name, "kernels": kernels, "error": error,
                   "status": "right" if right else "wrong"}  # fmt: skip


def races(only: str) -> Iterator[Row]:
    """Every case by Oclgrind. One about which it has anything to say is wrong."""
    from secateur import codegen

    for name, case in {**GPU_CASES, **{f"tiny: {name}": case for name, case in TINY.items()}}.items():
        if not fnmatch.fnmatch(name, only):
            continue
        graph, inputs, wanted = graph_of(case, name)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            codegen.build(graph, "opencl").save(place / "library")
            np.savez(place / "inputs.npz", *inputs)
            out, log = place / "outputs.npz", place / "log"
            command = ["oclgrind", "--data-races", "--local-mem-size", LOCAL, "--log", str(log), sys.executable, "-c",
                       INTERPRET, str(place / "library"), str(place / "inputs.npz"), str(out)]  # fmt: skip
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds = round(time.perf_counter() - start, 1)
            with np.load(out) as found:
                error = distance([found[k] for k in found.files], wanted)
            said = log.read_text(errors="replace").splitlines()
        yield {"kind": "races", "case": name, "reports": len(said), "error": error, "seconds": seconds,
               "status": "wrong" if said or not error <= LIMIT else "right"}  # fmt: skip


def cubins() -> Iterator[Row]:
    """All cases as one library for each architecture, with what ptxas says of its kernels."""
    from bench.reach.gpu_cases import together
    from secateur import codegen
    from secateur.codegen.gpu_library import GpuLibrary
    from secateur.codegen.targets import GPUS
    from secateur.ir.frontends.torch.trace import trace

    module, inputs = together([*GPU_CASES, *TINY])
    graph = trace(module, inputs, name="together")
    for target in (name for name in GPUS if name.startswith("cuda")):
        start = time.perf_counter()
        library = codegen.build(graph, target)
        assert isinstance(library, GpuLibrary)
        used = list(library.code.resources.values())
        spilled = sum(one.spilled for one in used)
        yield {"kind": "cubin", "case": target, "kernels": len(used), "registers": max(one.registers for one in used),
               "spilled_bytes": spilled, "shared_bytes": max(one.shared for one in used),
               "seconds": round(time.perf_counter() - start, 1), "status": "wrong" if spilled else "right"}  # fmt: skip


def networks(only: str, seed: int) -> Iterator[Row]:
    """Every network by PoCL."""
    from secateur import codegen
    from secateur.ir.exporters.torch.module import evaluate

    for name in SHARES:
        if fnmatch.fnmatch(name, only):
            given = subject(name, seed, SIDE)
            graph, x, library = given.graph, given.x, codegen.build(given.graph, "opencl")
            error = error_of(library(x), list(evaluate(graph, {graph.inputs[0].name: x})))
            yield {"kind": "network", "case": name, "side": SIDE, "kernels": dict(library.metadata.kernels),
                   "notes": list(library.metadata.notes), "error": error,
                   "status": "right" if error <= LIMIT else "wrong"}  # fmt: skip


def main() -> int:
    """Run what is asked for, print, append the rows."""
    parser = common.parser(__doc__, "gpu.jsonl")
    parser.add_argument("parts", nargs="*", default=["templates", "races", "cubins", "networks"])
    parser.add_argument("--only", default="*", metavar="GLOB", help="templates or networks such as 'tv/*'")
    arguments = parser.parse_args()
    from secateur.codegen.devices import nvcc, opencl

    lacking = [
        *opencl.missing(),
        *([] if shutil.which("oclgrind") else ["oclgrind"]),
        *([] if nvcc.find() else ["nvcc"]),
    ]
    if lacking:
        print(f"this needs {', '.join(lacking)}", file=sys.stderr)
        return 2
    here = common.circumstances(arguments.seed)

    def rows() -> Iterator[Row]:
        if "templates" in arguments.parts:
            yield from templates(arguments.only)
        if "networks" in arguments.parts:
            yield from networks(arguments.only, arguments.seed)
        if "cubins" in arguments.parts:
            yield from cubins()
        if "races" in arguments.parts:
            yield from races(arguments.only)

    wrong = 0
    for row in rows():
        common.append(arguments.output, [row | here])
        wrong += row["status"] == "wrong"
        print(f"{row['kind']:10} {row['case']:45} {row['status']:9} {row.get('error', '')}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
