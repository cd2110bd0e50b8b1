"""What share of the multipliers' peak do inner loops for ARM reach, by LLVM's model of the processor?

    python -m bench.reach.inner_loops [--mca llvm-mca-19] [--target aarch64:neoverse-n1]

One layer of each kind is built for the target, the loop that multiplies most is cut out of its machine code, and
llvm-mca (Debian's llvm-19) says how many cycles a round takes if the caches hold everything. The peak is
``Target.fmas`` fused multiply-adds of vectors a cycle.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import nn

from bench.lib import common
from secateur.codegen.cpu_backend import CPU
from secateur.codegen.plan.family import family_of
from secateur.codegen.plan.lower import lower
from secateur.codegen.records import Records
from secateur.codegen.targets import Target, get_target
from secateur.codegen.tune.tuner import Tuner
from secateur.ir.frontends.torch.trace import trace

ROUNDS = 200
Layer = tuple[Callable[[], nn.Module], int, int]  # and the channels and the side of its input

LAYERS: Mapping[str, Layer] = MappingProxyType(
    {
        "dense 1x1, 256 to 64, 56x56": (lambda: nn.Conv2d(256, 64, 1), 256, 56),
        "dense 1x1, 512 to 2048, 7x7": (lambda: nn.Conv2d(512, 2048, 1), 512, 7),
        "dense 1x1 of any channels, 58 to 58, 28x28": (lambda: nn.Conv2d(58, 58, 1), 58, 28),
        "dense 3x3, stride 2, 128, 56x56": (lambda: nn.Conv2d(128, 128, 3, 2, 1), 128, 56),
        "dense 3x3, Winograd, 128, 28x28": (lambda: nn.Conv2d(128, 128, 3, 1, 1), 128, 28),
        "dense 1x1, Strassen, 1024 to 512, 14x14": (lambda: nn.Conv2d(1024, 512, 1), 1024, 14),
        "depthwise 3x3, 96, 56x56": (lambda: nn.Conv2d(96, 96, 3, 1, 1, groups=96), 96, 56),
        "depthwise 3x3, stride 2, 96, 56x56": (lambda: nn.Conv2d(96, 96, 3, 2, 1, groups=96), 96, 56),
        "depthwise 5x5, 240, 28x28": (lambda: nn.Conv2d(240, 240, 5, 1, 2, groups=240), 240, 28),
        "grouped 3x3, 32 groups of 4, 56x56": (lambda: nn.Conv2d(128, 128, 3, 1, 1, groups=32), 128, 56),
        "grouped 1x1, 3 groups of 80, 14x14": (lambda: nn.Conv2d(240, 240, 1, groups=3), 240, 14),
    }
)


def machine_code(layer: Layer, target: Target) -> tuple[str, str]:
    """The assembly of a layer's library, and the kernel family that multiplies."""
    make, channels, size = layer
    graph = trace(make().eval(), (torch.randn(1, channels, size, size),))
    program = lower(graph, target, 1, Tuner(target, 1, Records()).choose, CPU)
    heavy = max(program.calls, key=lambda call: getattr(call.spec, "macs", 0))
    family = family_of(heavy.spec, CPU.families)
    module = CPU.assemble(program, graph, target).module
    return str(module.inspect_source("asm")), f"{family and family.name} {heavy.choice}"


def hot_loop(assembly: str) -> list[str]:
    """The instructions of the loop without another inside that has the most fused multiply-adds."""
    stripped = (line.split("//")[0].strip() for line in assembly.splitlines())
    lines = [line for line in stripped if line and not re.match(r"\.Ltmp|\.\w+\s", line)]  # of debuggers, directives
    labels: dict[str, int] = {}
    best: list[str] = []
    inner = 0  # where the last loop began
    for i, line in enumerate(lines):
        if line.endswith(":"):
            labels[line[:-1]] = i
        back = re.match(r"(?:b\.\w+|cbnz|cbz|tbnz|tbz)\s.*?(\.\w+)$", line)
        if back and back[1] in labels and labels[back[1]] >= inner:
            inner = labels[back[1]]
            body = [part for part in lines[inner + 1 : i + 1] if not part.endswith(":")]
            best = max(best, body, key=lambda b: (_products(b, ".s["), _products(b)))  # by lanes, before transforms
    return best


def _products(body: list[str], kind: str = "") -> int:
    return sum(part.startswith("fmla") and kind in part for part in body)


def cycles(body: list[str], mca: str, mcpu: str) -> float:
    """Cycles a round, by llvm-mca. Raises CalledProcessError where it cannot read the code."""
    text = "\n".join(part for part in body if not re.match(r"b\.|cb|tb", part))
    command = [mca, "-mtriple=aarch64", f"-mcpu={mcpu}", f"-iterations={ROUNDS}"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert found is not None
    return int(found[1]) / ROUNDS


def main() -> int:
    """Analyse each, print, append the rows."""
    parser = common.parser(__doc__, "inner_loops.jsonl")
    parser.add_argument("--mca", default="llvm-mca-19", help="the program (Debian: llvm-19)")
    parser.add_argument("--target", default="aarch64:neoverse-n1", help="whose model LLVM has")
    arguments = parser.parse_args()
    target, here = get_target(arguments.target), common.circumstances(arguments.seed)
    for name, layer in LAYERS.items():
        assembly, kernel = machine_code(layer, target)
        body = hot_loop(assembly)
        took, products = cycles(body, arguments.mca, target.mcpu), _products(body)
        row = {
            "layer": name, "target": target.name, "kernel": kernel, "products": products, "instructions": len(body),
            "cycles": took, "share": products / target.fmas / took, "mca": arguments.mca,
        }  # fmt: skip
        common.append(arguments.output, [row | here])
        print(
            f"{name:44} {products:4} of {len(body):4} in {took:7.1f} cycles: {row['share']:.1%}  {kernel}", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
