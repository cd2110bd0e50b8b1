"""Lanes of vectors that are taken by numbers in another vector: an instruction on x86, element by element elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tvm import tirx

from .builder import KernelBuilder
from .types import Expr

SIGN = 31  # the bit of an int32 by which vectors are blended

# By the name that a target's ``permute`` has: LLVM's intrinsics for lanes of one vector, and of a pair where there is
# one. "portable" takes element by element: slow, and right on every machine, so that all but the instruction itself
# can be run anywhere.
PERMUTES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "avx2": ("llvm.x86.avx2.permps", ""),
        "avx512": ("llvm.x86.avx512.permvar.sf.512", "llvm.x86.avx512.vpermi2var.ps.512"),
        "portable": ("", ""),
    }
)


def pick(k: KernelBuilder, permute: str, vectors: Sequence[Expr], numbers: Expr) -> Expr:
    """Lane ``numbers[i]`` of 1, 2, 4, .. vectors, counted through all of them, in each lane i.

    ``numbers`` are int32. Bits above those that number the lanes do not count, so that no lane can be out of range.
    """
    one, pair = PERMUTES[permute]
    dtype = f"float32x{k.lanes}"
    if len(vectors) == 1 and not one:
        k.include(_portable(k.lanes))
        return tirx.call_extern(dtype, "permute", vectors[0], numbers)
    if len(vectors) == 1:
        return tirx.call_llvm_pure_intrin(dtype, one, vectors[0], numbers)
    if len(vectors) == 2 and pair:
        return tirx.call_llvm_pure_intrin(dtype, pair, vectors[0], numbers, vectors[1])
    half = len(vectors) // 2
    low, high = (k.vector(pick(k, permute, part, numbers)) for part in (vectors[:half], vectors[half:]))
    bit = (half * k.lanes).bit_length() - 1
    negative = (numbers << _all(k, SIGN - bit)) < _all(k, 0)  # one instruction blends by signs
    return tirx.Select(negative, high, low)


def shifted(k: KernelBuilder, numbers: Expr, bits: int) -> Expr:
    """int32 of all lanes without their lowest ``bits``."""
    return numbers >> _all(k, bits) if bits else numbers


def _all(k: KernelBuilder, value: int) -> Expr:
    return tirx.Broadcast(tirx.IntImm("int32", value), k.lanes)


def _portable(lanes: int) -> str:
    wide, ints = f"<{lanes} x float>", f"<{lanes} x i32>"
    steps = [f"%n = and {ints} %i, splat (i32 {lanes - 1})"]
    for lane in range(lanes):
        before = f"%r{lane}" if lane else "%x"
        steps += [
            f"%n{lane} = extractelement {ints} %n, i32 {lane}",
            f"%e{lane} = extractelement {wide} %x, i32 %n{lane}",
            f"%r{lane + 1} = insertelement {wide} {before}, float %e{lane}, i32 {lane}",
        ]
    body = "\n".join(f"  {step}" for step in [*steps, f"ret {wide} %r{lanes}"])
    return f"define linkonce_odr {wide} @permute({wide} %x, {ints} %i) alwaysinline {{\n{body}\n}}\n"
