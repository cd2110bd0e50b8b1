"""What share of the peak of bfloat16 would its kernels reach, by LLVM's model of a processor? Predicted, not measured.

    python -m bench.reach.bf16_loops [--mca llvm-mca-19] [--model aarch64:neoverse-v1=neoverse-v1 ..]

Layers are built for a target with bfloat16. Of each kernel the loop that multiplies and the one that rounds are cut out
of its machine code; llvm-mca (Debian's llvm-19) says how many cycles a round of each takes if the caches hold all, and
the same of the product alone: the peak. ``share`` is the multiplying loop's, ``kernel_share`` that of all products of
the layer, padding left out, with the rounding of its input next to them. ``gain``: multiply-accumulates a cycle in that
loop over those in the direct kernel's of float32. ``spills``: accesses to the stack in the loop.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from bench.lib import common
from secateur.codegen.backends import backend_for
from secateur.codegen.cpu_backend import CPU
from secateur.codegen.dots import DOTS
from secateur.codegen.emit.builder import segments
from secateur.codegen.kernels.bf16.spec import Bf16Choice, Bf16ConvSpec
from secateur.codegen.kernels.bf16.strip import strip
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.precision import F32, Precision
from secateur.codegen.plan.program import Program
from secateur.codegen.records import Records
from secateur.codegen.targets import Target, target_for
from secateur.codegen.tune.tuner import Tuner
from secateur.ir import Graph
from secateur.ir.frontends.torch.trace import trace

ROUNDS = 200
INSTRUCTIONS = MappingProxyType({"dpbf16ps": ("vdpbf16ps", "vcvtneps2bf16"), "bfmmla": ("bfmmla", "bfcvtn")})
FUSED = re.compile(r"vfmadd\d+ps|fmla")  # of float32
ALONE = MappingProxyType(  # products that need nothing of each other
    {
        "dpbf16ps": [f"vdpbf16ps %zmm30, %zmm31, %zmm{i}" for i in range(28)],
        "bfmmla": [f"bfmmla v{i}.4s, v30.8h, v31.8h" for i in range(28)],
    }
)
MODELS = ("x86-avx512-bf16=sapphirerapids", "x86-avx512-bf16=znver4", "aarch64:neoverse-v1=neoverse-v1")
Layer = tuple[Callable[[], nn.Module], tuple[int, ...]]  # and the shape of its input


def _conv(ci: int, co: int, k: int, size: int, stride: int = 1) -> Layer:
    return lambda: nn.Conv2d(ci, co, k, stride, k // 2), (1, ci, size, size)


LAYERS: Mapping[str, Layer] = MappingProxyType(
    {
        "1x1, 64 to 256, 56x56": _conv(64, 256, 1, 56),
        "1x1, 256 to 64, 56x56": _conv(256, 64, 1, 56),
        "1x1, 512 to 128, 28x28": _conv(512, 128, 1, 28),
        "1x1, 1024 to 256, 14x14": _conv(1024, 256, 1, 14),
        "1x1, 512 to 2048, 7x7": _conv(512, 2048, 1, 7),
        "3x3, 64, 56x56": _conv(64, 64, 3, 56),
        "3x3, 128, 28x28": _conv(128, 128, 3, 28),
        "3x3, 256, 14x14": _conv(256, 256, 3, 14),
        "3x3, 512, 7x7": _conv(512, 512, 3, 7),
        "3x3, stride 2, 128, 56x56": _conv(128, 128, 3, 56, 2),
    }
)


@dataclass(frozen=True)
class Loop:
    """Instructions of a loop without another inside."""

    body: tuple[str, ...]

    def count(self, pattern: str | re.Pattern[str]) -> int:
        """How many begin so."""
        return sum(re.match(pattern, line) is not None for line in self.body)

    @property
    def spills(self) -> int:
        """Accesses to the stack."""
        return sum(re.search(r"\(%rsp|\[sp\b", line) is not None for line in self.body)

    def cycles(self, mca: str, target: Target, model: str) -> float:
        """A round takes so many, by llvm-mca."""
        return cycles([line for line in self.body if not _BRANCH.match(line)], mca, target, model)


_BRANCH = re.compile(r"(?:j\w+|b\.\w+|b|cbnz|cbz|tbnz|tbz)\s.*?(\.L\w+)$")


def loops(assembly: str) -> list[Loop]:
    """All loops that have no label inside."""
    stripped = (re.split(r"//|\s#\s", line)[0].strip() for line in assembly.splitlines())
    lines = [line for line in stripped if line and not re.match(r"\.Ltmp|\.\w+\s|#", line)]
    labels: dict[str, int] = {}
    found, inner = [], 0
    for i, line in enumerate(lines):
        if line.endswith(":"):
            labels[line[:-1]] = inner = i
            continue
        back = _BRANCH.match(line)
        if back and labels.get(back[1]) == inner:
            found.append(Loop(tuple(lines[inner + 1 : i + 1])))
    return found


def hottest(assembly: str, pattern: str | re.Pattern[str]) -> Loop:
    """The loop with the most of an instruction."""
    return max(loops(assembly), key=lambda loop: loop.count(pattern))


def cycles(body: list[str], mca: str, target: Target, model: str) -> float:
    """Cycles a round. Raises CalledProcessError where llvm-mca cannot read the code."""
    command = [mca, f"-mtriple={target.triple}", f"-mcpu={model}", f"-iterations={ROUNDS}"]
    command += ["-mattr=+bf16"] if target.triple.startswith("aarch64") else []
    done = subprocess.run(command, input="\n".join(body), capture_output=True, text=True, check=True)
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert found is not None
    return int(found[1]) / ROUNDS


def planned(graph: Graph, target: Target, precision: Precision) -> tuple[Program, str]:
    """What is called, without algorithms that multiply less, and the assembly."""
    backend = backend_for(target, precision).exact()
    program = lower(graph, target, 1, Tuner(target, 1, Records()).choose, backend)
    return program, str(CPU.assemble(program, graph, target).module.inspect_source("asm"))


def layer_of(layer: Layer) -> Graph:
    """A network of it alone."""
    make, shape = layer
    return trace(make().eval(), (torch.randn(*shape),))


def products(spec: Bf16ConvSpec, choice: Bf16Choice, target: Target) -> int:
    """How many a kernel computes, those that are dropped at the ends of rows included."""
    dot, tile = DOTS[target.bf16], strip(spec, choice)
    size, total = (tile.high, spec.h) if spec.h > 1 else (tile.wide, spec.w)
    pixels = sum(
        rcount * rows * ccount * -(-columns // dot.pixels)
        for _, rcount, rows in segments(tile.high, choice.rows)
        for _, ccount, columns in segments(tile.wide, choice.columns)
    )
    steps = spec.taps * spec.inputs * spec.lanes // dot.channels
    return spec.n * -(-total // size) * pixels * steps * spec.blocks * dot.pixels


def roundings(spec: Bf16ConvSpec, choice: Bf16Choice) -> int:
    """How many vectors a kernel rounds."""
    tile = strip(spec, choice)
    size, total = (tile.high, spec.h) if spec.h > 1 else (tile.wide, spec.w)
    return spec.n * -(-total // size) * spec.inputs * tile.rows * tile.columns


def analysed(layer: Layer, target: Target, model: str, mca: str) -> dict[str, object]:
    """The row of a layer."""
    graph = layer_of(layer)
    program, assembly = planned(graph, target, Precision("bf16"))
    call = next(call for call in program.calls if isinstance(call.spec, Bf16ConvSpec))
    spec, choice, dot = call.spec, call.choice, DOTS[target.bf16]
    assert isinstance(spec, Bf16ConvSpec)
    assert isinstance(choice, Bf16Choice)
    product, rounding = INSTRUCTIONS[target.bf16]
    alone = ALONE[target.bf16]
    peak = cycles(list(alone), mca, target, model) / len(alone)  # cycles a product
    loop, other = hottest(assembly, product), hottest(assembly, rounding)
    each = loop.cycles(mca, target, model) / loop.count(product)
    vector = other.cycles(mca, target, model) / other.count(rounding)
    needed = spec.macs / (target.lanes * dot.channels)  # products, if none were dropped
    whole = products(spec, choice, target) * each + roundings(spec, choice) * vector
    plain = hottest(planned(graph, target, F32)[1], FUSED)
    float32 = plain.cycles(mca, target, model) / plain.count(FUSED)
    return {
        "kernel": str(choice), "products": loop.count(product), "instructions": len(loop.body), "spills": loop.spills,
        "share": peak / each, "kernel_share": needed * peak / whole, "peak_macs": target.lanes * dot.channels / peak,
        "gain": dot.channels * float32 / each, "predicted": True,
    }  # fmt: skip


def main() -> int:
    """Analyse each layer by each model, print, append the rows."""
    parser = common.parser(__doc__, "bf16_loops.jsonl")
    parser.add_argument("--mca", default="llvm-mca-19", help="the program (Debian: llvm-19)")
    parser.add_argument("--model", nargs="+", default=list(MODELS), metavar="TARGET=MODEL", help="of llvm-mca")
    arguments = parser.parse_args()
    here = common.circumstances(arguments.seed)
    for pair in arguments.model:
        name, model = pair.rsplit("=", 1)
        for title, layer in LAYERS.items():
            found = analysed(layer, target_for(name, "bf16"), model, arguments.mca)
            common.append(
                arguments.output,
                [{"layer": title, "target": name, "model": model, **found, "mca": arguments.mca} | here],
            )
            print(f"{model:15} {title:28} {found['share']:6.1%} {found['kernel_share']:6.1%} of the peak, "
                  f"{found['gain']:.2f} times float32, {found['spills']} spills", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
