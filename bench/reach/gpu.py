"""Do kernels for GPUs compute what torch does? And what can be said of their speed without a GPU.

    python -m bench.reach.gpu [templates] [races] [cubins] [networks] [predictions] [--only GLOB]

``templates``: every case of ``gpu_cases.py`` by PoCL; ``races``: the same interpreted by Oclgrind, which reports data
races, places out of bounds and barriers that not all work items come to; ``cubins``: all of them by nvcc, for four
architectures; ``networks``: twelve whole networks on images of 64x64 by PoCL, two of them pruned to half of their
multiply-accumulates. Right means within 1e-4 of the output's largest value. ``predictions``: the share of the roofline
of two boards, by counting (``gpu_roofline.py``), which no measurement has checked. Needs Debian's packages
pocl-opencl-icd and oclgrind, and the extras [opencl] and [cuda]. PYOPENCL_BUILD_OPTIONS=-cl-opt-disable spares PoCL its
optimiser, which takes most of the time.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.lib import common
from bench.reach.emulated_cases import Case
from bench.reach.gpu_cases import GPU_CASES, TINY
from bench.reach.gpu_roofline import BOARDS, Launched, by_family
from bench.speed.libraries import distance
from secateur.codegen.devices.code import Launch

SIDE, LIMIT = 64, 1e-4
NETWORKS: dict[str, float] = {  # the share of multiply-accumulates that is left
    "tv/mobilenet_v2": 1.0, "tv/resnet18": 1.0, "tv/resnet50": 1.0, "tv/shufflenet_v2_x1_0": 1.0,
    "tv/resnext50_32x4d": 1.0, "timm/seresnet18": 1.0, "tv/densenet121": 1.0, "tv/squeezenet1_1": 1.0,
    "tv/regnet_y_400mf": 1.0, "tv/efficientnet_b0": 1.0, "tv/resnet18, half": 0.5, "tv/mobilenet_v2, half": 0.5,
}  # fmt: skip
ZEROS: dict[str, float] = {"tv/resnet50, 70 % zeros": 0.7}  # in blocks of 32 outputs
PREDICTED = ("tv/resnet50", *ZEROS, "tv/mobilenet_v2", "tv/shufflenet_v2_x1_0", "tv/resnext50_32x4d")
PRECISE, PRECISIONS = "tv/resnet50", ("f32", "tf32", "f16")
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


def network(name: str, seed: int, side: int, batch: int = 1) -> tuple[Any, Any]:
    """The graph of a network of the zoo, pruned where it says so, and an input."""
    import torch

    import secateur
    from bench.data import zoo
    from secateur.ir.frontends.torch.trace import trace

    kind, _, model = name.partition(",")[0].partition("/")
    module = zoo.build(kind, model, seed)
    x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))
    if name in ZEROS:
        found = secateur.compile(module, "l1", example_inputs=(x,), target="cuda:sm_90", seed=seed, macs=1.0,
                                 sparsity=ZEROS[name], block="32x1")  # fmt: skip
        return found.graph, x.numpy()
    share = NETWORKS[name]
    if share == 1.0:
        return trace(module, (x,), name=name, dynamic_batch=False), x.numpy()
    return secateur.compile(module, "l1", example_inputs=(x,), target="opencl", seed=seed, macs=share).graph, x.numpy()


def networks(only: str, seed: int) -> Iterator[Row]:
    """Every network by PoCL."""
    from secateur import codegen
    from secateur.ir.exporters.torch.module import evaluate

    for name in NETWORKS:
        if fnmatch.fnmatch(name, only):
            graph, x = network(name, seed, SIDE)
            library = codegen.build(graph, "opencl")
            error = error_of(library(x), list(evaluate(graph, {graph.inputs[0].name: x})))
            yield {"kind": "network", "case": name, "side": SIDE, "kernels": dict(library.metadata.kernels),
                   "notes": list(library.metadata.notes), "error": error,
                   "status": "right" if error <= LIMIT else "wrong"}  # fmt: skip


def calls_of(launches: Sequence[Launch]) -> list[list[Launch]]:
    """The launches of each call of a program: a kernel that is launched after another is named after it."""
    from secateur.codegen.emit.gpu.assemble import THEN

    found: list[list[Launch]] = []
    for one in launches:
        if one.kernel.endswith(THEN):
            found[-1].append(one)
        else:
            found.append([one])
    return found


def predictions(only: str, seed: int) -> Iterator[Row]:
    """The predicted share of each board's roofline, for each family of a network's kernels, images of 224x224."""
    from secateur.codegen.backends import GPU
    from secateur.codegen.devices import nvcc
    from secateur.codegen.plan.family import family_of
    from secateur.codegen.plan.lower import lower
    from secateur.codegen.plan.precision import Precision
    from secateur.codegen.records import Records
    from secateur.codegen.targets import GPUS
    from secateur.codegen.tune.tuner import Tuner

    for name in PREDICTED:
        for batch in (1, 16) if fnmatch.fnmatch(name, only) else ():
            graph, _ = network(name, seed, 224, batch)
            for mode, (title, board) in product(PRECISIONS if name == PRECISE else ("f32",), BOARDS.items()):
                target, backend = GPUS[board.target], replace(GPU, precision=Precision(mode))
                program = lower(graph, target, 1, Tuner(target, 1, Records()).choose, backend)
                code = backend.assemble(program, graph, target).code
                _, resources = nvcc.compile_cubin(code.source, target.mcpu)
                launches = []
                for call, of_call in zip(program.calls, calls_of(code.launches), strict=True):
                    family = family_of(call.spec, GPU.families)
                    kernels = [(code.kernels[one.kernel], resources[one.kernel]) for one in of_call]
                    launches.append(Launched(family.name if family else "copies", call.spec, call.choice, kernels))
                shown = name if mode == "f32" else f"{name}, {mode}"
                yield {"kind": "prediction", "case": f"{shown} on {title}, batch {batch}", "network": shown,
                       "board": title, "batch": batch, "families": by_family(launches, board),
                       "status": "predicted"}  # fmt: skip


def main() -> int:
    """Run what is asked for, print, append the rows."""
    parser = common.parser(__doc__, "gpu.jsonl")
    parser.add_argument("parts", nargs="*", default=["templates", "races", "cubins", "networks", "predictions"])
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
        if "predictions" in arguments.parts:
            yield from predictions(arguments.only, arguments.seed)
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
