"""Products of small matrices by a warp's tensor cores, as PTX's ``mma`` has them, and the same in plain OpenCL.

The matrices are 16 x 8 and 8 x 8 words: a word is a number rounded to TF32, or a pair of numbers in FP16 that follow
each other in the reduction, low half first (so FP16 is m16n8k16). Sums are float32. Which words a lane has is said in
PTX ISA, "Matrix Fragments for mma.m16n8k8" and "mma.m16n8k16": with ``g = lane / 4`` and ``t = lane % 4``

    left    word (row g + 8 (i % 2), column t + 4 (i / 2))   i = 0..3
    right   word (row t + 4 i, column g)                     i = 0, 1
    sums    (row g + 8 (i / 2), column 2 t + i % 2)          i = 0..3

``mma.sp`` multiplies a left matrix of which half of the numbers are zeros: two of four that follow each other in FP16
(m16n8k32), one of two in TF32 (m16n8k16). The left words hold the others, right words are 16 rows (i = 0..3), and lanes
t = 0, 1 say of the chunks 4 t .. 4 t + 3 of the rows g and g + 8 which numbers are there, in four bits each, the first
chunk and the row g lowest. In FP16 these are two positions of two bits, the first lowest; in TF32 0100 for the first
number, 1110 for the second (PTX ISA, "Sparse matrix storage" and "Matrix Fragments for sparse mma", selector 0).

In OpenCL lanes exchange their words through shared memory and each computes its sums, so what a kernel does with lanes
is run as it is on a device without tensor cores.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from secateur.codegen.emit.types import Buffer, Expr

from .builder import FLOAT, INT, GpuBuilder, integer
from .matrices import JOINED, LEFT, PRUNED, RIGHT

_WORDS, _SPARSE_WORDS = LEFT + RIGHT, LEFT + PRUNED * RIGHT + 1


def word(dtype: str, *numbers: Expr) -> Expr:
    """The word of one number or of two."""
    return tirx.call_extern(FLOAT, f"word_{dtype}", *numbers)


def exchange(k: GpuBuilder, cuda: bool, sparse: bool = False) -> Buffer | None:
    """Where lanes exchange words; None where the device does it."""
    return None if cuda else k.shared(k.items * (_SPARSE_WORDS if sparse else _WORDS))


def mma(k: GpuBuilder, dtype: str, sums: Buffer, at: Expr, left: Sequence[Expr], right: Sequence[Expr],
        through: Buffer | None, where: Expr | None = None) -> None:  # fmt: skip
    """Add a product to the lane's sums from ``at`` on. All work items of a group come by.

    ``where``: the word that says which numbers the left words are, where half of them are zeros.
    """
    name, right = (f"mma_{dtype}", right) if where is None else (f"mma_sp_{dtype}", [*right, where])
    more = [] if through is None else [tirx.address_of(tirx.BufferLoad(through, [integer(0)]))]
    to = tirx.address_of(tirx.BufferLoad(sums, [integer(at) if isinstance(at, int) else at]))
    k.emit(tirx.Evaluate(tirx.call_extern(INT, name, to, *left, *right, *more)))


def prelude(text: str, cuda: bool) -> str:
    """The text of kernels after the functions that they call."""
    parts: list[str] = []
    for dtype in JOINED:
        kinds = [kind for kind in (DENSE, SPARSE) if f"{kind}_{dtype}(" in text]
        if kinds:
            parts.append((_CONVERT if cuda else _ROUND)[dtype])
        parts += [(_INSTRUCTIONS if cuda else _EMULATED)[kind].replace("DTYPE", dtype)
                  .replace("SHAPE", _SHAPES[kind, dtype]) for kind in kinds]  # fmt: skip
    return "".join([*([_LANES] if parts and not cuda else []), *parts, text])


DENSE, SPARSE = "mma", "mma_sp"
_SHAPES = {
    (DENSE, "tf32"): "m16n8k8.row.col.f32.tf32.tf32.f32", (DENSE, "f16"): "m16n8k16.row.col.f32.f16.f16.f32",
    (SPARSE, "tf32"): "m16n8k16.row.col.f32.tf32.tf32.f32", (SPARSE, "f16"): "m16n8k32.row.col.f32.f16.f16.f32",
}  # fmt: skip
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
_INSTRUCTIONS = {
    DENSE: """
static __device__ __forceinline__ void mma_DTYPE(float* d, float a0, float a1, float a2, float a3, float b0, float b1) {
  asm volatile("mma.sync.aligned.SHAPE {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(__float_as_uint(a0)), "r"(__float_as_uint(a1)), "r"(__float_as_uint(a2)),
                 "r"(__float_as_uint(a3)), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}
""",
    # Positions rise, as the first form asks for; nvcc has it since CUDA 12.5, and calls the other one slow.
    SPARSE: """
#if __CUDACC_VER_MAJOR__ > 12 || (__CUDACC_VER_MAJOR__ == 12 && __CUDACC_VER_MINOR__ >= 5)
#define SPARSE_DTYPE "mma.sp::ordered_metadata"
#else
#define SPARSE_DTYPE "mma.sp"
#endif
static __device__ __forceinline__ void mma_sp_DTYPE(float* d, float a0, float a1, float a2, float a3, float b0,
                                                    float b1, float b2, float b3, float e) {
  asm volatile(SPARSE_DTYPE ".sync.aligned.SHAPE "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, 0x0;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(__float_as_uint(a0)), "r"(__float_as_uint(a1)), "r"(__float_as_uint(a2)),
                 "r"(__float_as_uint(a3)), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)),
                 "r"(__float_as_uint(b2)), "r"(__float_as_uint(b3)), "r"(__float_as_uint(e)));
}
""",
}
_ROUND = {
    "tf32": """
float word_tf32(float x) { return isfinite(x) ? as_float((as_uint(x) + 0x1000u) & 0xffffe000u) : x; }
float product_tf32(float a, float b) { return a * b; }
float chosen_tf32(float a, float low, float high, uint bits) { return a * (bits == 0xeu ? high : low); }
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
float chosen_f16(float a, float low, float high, uint bits) {
  ushort x[2] = {(ushort)(as_uint(a) & 0xffffu), (ushort)(as_uint(a) >> 16)};
  ushort y[4] = {(ushort)(as_uint(low) & 0xffffu), (ushort)(as_uint(low) >> 16),
                 (ushort)(as_uint(high) & 0xffffu), (ushort)(as_uint(high) >> 16)};
  return vload_half(0, (half*)x) * vload_half(bits & 3u, (half*)y)
       + vload_half(1, (half*)x) * vload_half(bits >> 2, (half*)y);
}
""",
}
_LANES = """
// The word that lane `row % 8 * 4 + column % 4` of a warp has of the left matrix, and the like of the right one; lanes
// have `each` words.
float left_word(__local float* warp, int each, int row, int column) {
  return warp[(row % 8 * 4 + column % 4) * each + row / 8 + column / 4 * 2];
}
float right_word(__local float* warp, int each, int row, int column) {
  return warp[(column * 4 + row % 4) * each + 4 + row / 4];
}
"""
_EMULATED = {
    DENSE: """
void mma_DTYPE(float* d, float a0, float a1, float a2, float a3, float b0, float b1, __local float* words) {
  int item = get_local_id(0), lane = item % 32;
  __local float* own = words + item * 6;
  __local float* warp = words + (item - lane) * 6;
  own[0] = a0; own[1] = a1; own[2] = a2; own[3] = a3; own[4] = b0; own[5] = b1;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int i = 0; i < 4; ++i) {
    float sum = d[i];
    for (int k = 0; k < 8; ++k) {
      sum += product_DTYPE(left_word(warp, 6, lane / 4 + i / 2 * 8, k), right_word(warp, 6, k, lane % 4 * 2 + i % 2));
    }
    d[i] = sum;
  }
  barrier(CLK_LOCAL_MEM_FENCE);
}
""",
    SPARSE: """
void mma_sp_DTYPE(float* d, float a0, float a1, float a2, float a3, float b0, float b1, float b2, float b3, float e,
                  __local float* words) {
  int item = get_local_id(0), lane = item % 32;
  __local float* own = words + item * 9;
  __local float* warp = words + (item - lane) * 9;
  own[0] = a0; own[1] = a1; own[2] = a2; own[3] = a3; own[4] = b0; own[5] = b1; own[6] = b2; own[7] = b3; own[8] = e;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int i = 0; i < 4; ++i) {
    int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float sum = d[i];
    for (int k = 0; k < 8; ++k) {
      uint bits = as_uint(warp[(row % 8 * 4 + k / 4) * 9 + 8]) >> (row / 8 * 16 + k % 4 * 4) & 15u;
      sum += chosen_DTYPE(left_word(warp, 9, row, k), right_word(warp, 9, 2 * k, column),
                          right_word(warp, 9, 2 * k + 1, column), bits);
    }
    d[i] = sum;
  }
  barrier(CLK_LOCAL_MEM_FENCE);
}
""",
}
