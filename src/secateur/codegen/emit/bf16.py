"""Arithmetic in bfloat16 as LLVM writes it: rounding to it, and products of it that are added up in float32.

TVM 0.27 ends with a segmentation fault on any value of type bfloat16, so its types never see one: two bfloat16 lie in
the place of a float32, and functions in LLVM's own language, which are inlined where they are called, look inside.

``bf16_round(x)`` makes half as many words of a vector, the nearest bfloat16 of each number, ties to even; NaN stays
NaN. ``bf16_round_masked(x, mask)`` first takes what the mask has no bits for as 0. ``bf16_dot(sums, x, w)`` adds the
products of ``dots.Dot``.
"""

from __future__ import annotations

from tvm import tirx

from .builder import KernelBuilder
from .types import Expr


def round_pairs(k: KernelBuilder, dot: str, vector: Expr, mask: Expr | None = None) -> Expr:
    """A vector of float32 in half of its size, as bfloat16."""
    _use(k, dot)
    name, given = ("bf16_round", [vector]) if mask is None else ("bf16_round_masked", [vector, mask])
    return k.vector(tirx.call_extern(f"float32x{k.lanes // 2}", name, *given))


def add_product(k: KernelBuilder, dot: str, sums: Expr, x: Expr, w: Expr) -> Expr:
    """``sums`` and the products of vectors of bfloat16 that ``dot`` multiplies."""
    _use(k, dot)
    return tirx.call_extern(f"float32x{k.lanes}", "bf16_dot", sums, x, w)


def _use(k: KernelBuilder, dot: str) -> None:
    k.include(_round(dot, k.lanes) + _dot(dot, k.lanes))


def _function(result: str, name: str, parameters: str, body: str) -> str:
    lines = "\n".join(f"  {line.strip()}" for line in body.strip().splitlines())
    return f"define linkonce_odr {result} @{name}({parameters}) alwaysinline {{\n{lines}\n}}\n"


def _round(dot: str, lanes: int) -> str:
    wide, ints, words = f"<{lanes} x float>", f"<{lanes} x i32>", f"<{lanes // 2} x float>"
    narrow = f"<{lanes} x bfloat>"
    if dot == "dpbf16ps":
        steps = f"%h = call {narrow} @llvm.x86.avx512bf16.cvtneps2bf16.512({wide} %x)\n"
        head = f"declare {narrow} @llvm.x86.avx512bf16.cvtneps2bf16.512({wide})\n"
    elif dot == "bfmmla":
        head, steps = "", f"%h = fptrunc {wide} %x to {narrow}\n"
    else:
        head, narrow = "", f"<{lanes} x i16>"
        steps = f"""
            %b = bitcast {wide} %x to {ints}
            %s = lshr {ints} %b, splat (i32 16)
            %o = and {ints} %s, splat (i32 1)
            %r = add {ints} %o, splat (i32 32767)
            %t = add {ints} %b, %r
            %n = fcmp uno {wide} %x, zeroinitializer
            %q = or {ints} %b, splat (i32 4194304)
            %v = select <{lanes} x i1> %n, {ints} %q, {ints} %t
            %u = lshr {ints} %v, splat (i32 16)
            %h = trunc {ints} %u to {narrow}
            """
    steps += f"%w = bitcast {narrow} %h to {words}\nret {words} %w"
    masked = f"""
        %a = bitcast {wide} %x to {ints}
        %m = bitcast {wide} %mask to {ints}
        %z = and {ints} %a, %m
        %y = bitcast {ints} %z to {wide}
        %w = call {words} @bf16_round({wide} %y)
        ret {words} %w
        """
    return (
        head
        + _function(words, "bf16_round", f"{wide} %x", steps)
        + _function(words, "bf16_round_masked", f"{wide} %x, {wide} %mask", masked)
    )


def _dot(dot: str, lanes: int) -> str:
    wide = f"<{lanes} x float>"
    body = _portable(lanes) if dot == "portable" else _portable_matrix() if dot == "portable_matrix" else ""
    head = f"declare {wide} @llvm.fma.v{lanes}f32({wide}, {wide}, {wide})\n"
    if not body:
        name = {"dpbf16ps": "llvm.x86.avx512bf16.dpbf16ps.512", "bfmmla": "llvm.aarch64.neon.bfmmla"}[dot]
        pairs = f"<{2 * lanes} x bfloat>"
        head = f"declare {wide} @{name}({wide}, {pairs}, {pairs})\n"
        body = f"""
            %a = bitcast {wide} %x to {pairs}
            %b = bitcast {wide} %w to {pairs}
            %r = call {wide} @{name}({wide} %s, {pairs} %a, {pairs} %b)
            ret {wide} %r
            """
    return head + _function(wide, "bf16_dot", f"{wide} %s, {wide} %x, {wide} %w", body)


def _portable(lanes: int) -> str:
    """Two fused multiply-adds: of the lower halves of all words, then of the upper ones."""
    wide, ints = f"<{lanes} x float>", f"<{lanes} x i32>"
    halves = "".join(
        f"""
        %{v}i = bitcast {wide} %{v} to {ints}
        %{v}l = shl {ints} %{v}i, splat (i32 16)
        %{v}h = and {ints} %{v}i, splat (i32 -65536)
        %{v}0 = bitcast {ints} %{v}l to {wide}
        %{v}1 = bitcast {ints} %{v}h to {wide}"""
        for v in "xw"
    )
    fma = f"call {wide} @llvm.fma.v{lanes}f32"
    return f"""{halves}
        %t = {fma}({wide} %x0, {wide} %w0, {wide} %s)
        %r = {fma}({wide} %x1, {wide} %w1, {wide} %t)
        ret {wide} %r
        """


def _portable_matrix() -> str:
    """[2 pixels, 4 channels] x [2 outputs, 4 channels] onto [2 pixels, 2 outputs]: a fused multiply-add a channel."""
    wide = "<4 x float>"
    lines = [
        f"""
        %{v}i = bitcast {wide} %{v} to <8 x i16>
        %{v}z = zext <8 x i16> %{v}i to <8 x i32>
        %{v}s = shl <8 x i32> %{v}z, splat (i32 16)
        %{v}f = bitcast <8 x i32> %{v}s to <8 x float>"""
        for v in "xw"
    ]
    last = "s"
    for c in range(4):
        for v, lanes in (("x", (c, c, 4 + c, 4 + c)), ("w", (c, 4 + c, c, 4 + c))):
            picked = ", ".join(f"i32 {lane}" for lane in lanes)
            lines.append(f"%{v}{c} = shufflevector <8 x float> %{v}f, <8 x float> poison, <4 x i32> <{picked}>")
        lines.append(f"%t{c} = call {wide} @llvm.fma.v4f32({wide} %x{c}, {wide} %w{c}, {wide} %{last})")
        last = f"t{c}"
    return "\n".join([*lines, f"ret {wide} %{last}"])
