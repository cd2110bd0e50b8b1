"""Products of small matrices by a warp's tensor cores, as PTX's ``mma.sync`` has them, and the same in plain OpenCL.

The matrices are 16 x 8 and 8 x 8 words: a word is a number rounded to TF32, or a pair of numbers in FP16 that follow
each other in the reduction, low half first (so FP16 is m16n8k16). Sums are float32. Which words a lane has is said in
PTX ISA, "Matrix Fragments for mma.m16n8k8" and "mma.m16n8k16": with ``g = lane / 4`` and ``t = lane % 4``

    left    word (row g + 8 (i % 2), column t + 4 (i / 2))   i = 0..3
    right   word (row t + 4 i, column g)                     i = 0, 1
    sums    (row g + 8 (i / 2), column 2 t + i % 2)          i = 0..3

In OpenCL lanes exchange their words through shared memory and each computes its sums, so what a kernel does with lanes
is run as it is on a device without tensor cores.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from secateur.codegen.emit.types import Buffer, Expr

from .builder import FLOAT, INT, GpuBuilder, integer
from .matrices import JOINED, LEFT, RIGHT

_WORDS = LEFT + RIGHT


def word(dtype: str, *numbers: Expr) -> Expr:
    """The word of one number or of two."""
    return tirx.call_extern(FLOAT, f"word_{dtype}", *numbers)


def exchange(k: GpuBuilder, cuda: bool) -> Buffer | None:
    """Where lanes exchange words; None where the device does it."""
    return None if cuda else k.shared(k.items * _WORDS)


def mma(k: GpuBuilder, dtype: str, sums: Buffer, at: Expr, left: Sequence[Expr], right: Sequence[Expr],
        through: Buffer | None) -> None:  # fmt: skip
    """Add a product to the lane's sums from ``at`` on. All work items of a group come by."""
    more = [] if through is None else [tirx.address_of(tirx.BufferLoad(through, [integer(0)]))]
    to = tirx.address_of(tirx.BufferLoad(sums, [integer(at) if isinstance(at, int) else at]))
    k.emit(tirx.Evaluate(tirx.call_extern(INT, f"mma_{dtype}", to, *left, *right, *more)))


def prelude(text: str, cuda: bool) -> str:
    """The text of kernels after the functions that they call."""
    used = [dtype for dtype in JOINED if f"mma_{dtype}(" in text]
    if not used:
        return text
    return "".join([*([] if cuda else [_LANES]), *(_functions(dtype, cuda) for dtype in used), text])


def _functions(dtype: str, cuda: bool) -> str:
    if not cuda:
        return _ROUND[dtype] + _EMULATED.replace("DTYPE", dtype)
    shape = {"tf32": "m16n8k8.row.col.f32.tf32.tf32.f32", "f16": "m16n8k16.row.col.f32.f16.f16.f32"}[dtype]
    return _CONVERT[dtype] + _INSTRUCTION.replace("DTYPE", dtype).replace("SHAPE", shape)


_CONVERT = {
    "tf32": """
static __device__ __forceinline__ float word_tf32(float x) {
  unsigned r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return __uint_as_float(r);
}
""",
    "f16": """
static __device__ __forceinline__ float word_f16(float low, float high) {
  unsigned r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return __uint_as_float(r);
}
""",
}
_INSTRUCTION = """
static __device__ __forceinline__ void mma_DTYPE(float* d, float a0, float a1, float a2, float a3, float b0, float b1) {
  asm volatile("mma.sync.aligned.SHAPE {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(__float_as_uint(a0)), "r"(__float_as_uint(a1)), "r"(__float_as_uint(a2)),
                 "r"(__float_as_uint(a3)), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}
"""
_ROUND = {
    "tf32": """
float word_tf32(float x) { return isfinite(x) ? as_float((as_uint(x) + 0x1000u) & 0xffffe000u) : x; }
float product_tf32(float a, float b) { return a * b; }
""",
    "f16": """
float word_f16(float low, float high) {
  ushort r[2];
  vstore_half_rte(low, 0, (half*)r);
  vstore_half_rte(high, 1, (half*)r);
  return as_float((uint)r[0] | ((uint)r[1] << 16));
}
float product_f16(float a, float b) {
  ushort x[2] = {(ushort)(as_uint(a) & 0xffffu), (ushort)(as_uint(a) >> 16)};
  ushort y[2] = {(ushort)(as_uint(b) & 0xffffu), (ushort)(as_uint(b) >> 16)};
  return vload_half(0, (half*)x) * vload_half(0, (half*)y) + vload_half(1, (half*)x) * vload_half(1, (half*)y);
}
""",
}
_LANES = """
// The word that lane `row % 8 * 4 + column % 4` of a warp has of the left matrix, and the like of the right one.
float left_word(__local float* warp, int row, int column) {
  return warp[(row % 8 * 4 + column % 4) * 6 + row / 8 + column / 4 * 2];
}
float right_word(__local float* warp, int row, int column) {
  return warp[(column * 4 + row % 4) * 6 + 4 + row / 4];
}
"""
_EMULATED = """
void mma_DTYPE(float* d, float a0, float a1, float a2, float a3, float b0, float b1, __local float* words) {
  int item = get_local_id(0), lane = item % 32;
  __local float* own = words + item * 6;
  __local float* warp = words + (item - lane) * 6;
  own[0] = a0; own[1] = a1; own[2] = a2; own[3] = a3; own[4] = b0; own[5] = b1;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int i = 0; i < 4; ++i) {
    float sum = d[i];
    for (int k = 0; k < 8; ++k) {
      sum += product_DTYPE(left_word(warp, lane / 4 + i / 2 * 8, k), right_word(warp, k, lane % 4 * 2 + i % 2));
    }
    d[i] = sum;
  }
  barrier(CLK_LOCAL_MEM_FENCE);
}
"""
