"""Rules of products: matrices, linear layers, einsum and attention."""

from __future__ import annotations

import math

import numpy as np

from secateur.ir.graph import Value

from .arrays import FLOATS
from .build import Args, Builder, Skip, positions


def contract(b: Builder, x: Value, y: Value) -> Value:
    """A matrix product; of data by a constant matrix it is a linear layer."""
    if len(y.shape) == 2 and len(x.shape) >= 2 and not b.depends_on_none(x):
        maker = b.made.get(y.name)
        if maker is not None and maker.op == "transpose" and maker.inputs[0] in b.weights:
            return b.emit("linear", [x, b.values[maker.inputs[0] or ""]], transposed=False)
        if y.name in b.weights:
            return b.emit("linear", [x, y], transposed=True)
    return b.emit("matmul", [x, y])


def matmul(b: Builder, a: Args) -> Value:
    """mm, bmm, mv, dot and matmul: their second operand has four names."""
    other = next(a.get(k) for k in ("other", "mat2", "vec", "tensor") if k in a)
    return contract(b, a.self, other)


def vdot(b: Builder, a: Args) -> Value:
    """A scalar product of real vectors. Raises Skip for others."""
    if a.dtype not in FLOATS:
        raise Skip("vdot of complex numbers takes the conjugate of one")
    return b.emit("matmul", [a.self, a.other])


def addmm(b: Builder, a: Args) -> Value:
    """beta * self + alpha * (a matrix product); a linear layer where it is one."""
    x, y = (a.mat1, a.mat2) if "mat1" in a else (a.batch1, a.batch2)
    product = contract(b, x, y)
    made = b.nodes[-1]
    if made.op == "linear" and a.beta == 1 and a.alpha == 1 and a.self.shape == product.shape[-1:]:
        b.nodes.pop()
        transposed = made.attrs["transposed"]
        return b.emit("linear", [x, b.values[made.inputs[1] or ""], a.self], transposed=transposed)
    bias = a.self if a.beta == 1 else b.binary("mul", a.self, a.beta, a.dtype)
    product = product if a.alpha == 1 else b.binary("mul", product, a.alpha, a.dtype)
    return b.emit("add", [product, bias])


def linear(b: Builder, a: Args) -> Value:
    """A linear layer; by a weight that is a vector it is a product."""
    if len(a.weight.shape) != 2:
        return b.emit("matmul", [a.input, a.weight])
    return b.emit("linear", [a.input, a.weight, *([a.bias] if a.bias is not None else [])], transposed=False)


def bilinear(b: Builder, a: Args) -> Value:
    """y[o] = x1[i] w[o, i, j] x2[j] + b[o] over all axes before the last."""
    lead = "abcdefgh"[: len(a.input1.shape) - 1]
    product = b.emit("einsum", [a.input1, a.weight, a.input2], equation=f"{lead}m,omn,{lead}n->{lead}o")
    return product if a.bias is None else b.emit("add", [product, a.bias])


def einsum(b: Builder, a: Args) -> Value:
    """An einsum with its result spelled out, an ellipsis by letters of its own. Raises Skip."""
    equation = a.equation.replace(" ", "")
    if "." in equation:
        terms = equation.split("->")[0].split(",")
        ranks = [len(t.shape) - len(term.replace("...", "")) for term, t in zip(terms, a.tensors, strict=True)]
        free = [c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
        wide = max(r for r, term in zip(ranks, terms, strict=True) if "..." in term)
        if any(r != wide for r, term in zip(ranks, terms, strict=True) if "..." in term):
            raise Skip("an ellipsis that stands for more in one operand than in another")
        letters = "".join(free[:wide])
        if "->" not in equation:
            rest = equation.replace(",", "").replace(".", "")
            equation += "->..." + "".join(sorted(c for c in set(rest) if rest.count(c) == 1))
        equation = equation.replace("...", letters)
    if "->" not in equation:
        letters = equation.replace(",", "")
        equation += "->" + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return b.emit("einsum", list(a.tensors), equation=equation)


def attention(b: Builder, a: Args) -> Value:
    """Scaled dot product attention spelled out: softmax(q k^T * scale + mask) v."""
    q, k, v, mask = a.query, a.key, a.value, a.attn_mask
    if a.get("enable_gqa") or a.dropout_p:
        raise Skip("grouped queries or attention dropout")
    scale = a.scale if a.scale is not None else 1 / math.sqrt(q.shape[-1])
    rank = len(k.shape)
    turned = b.transpose(k, (*range(rank - 2), rank - 1, rank - 2))
    weights = b.binary("mul", b.emit("matmul", [q, turned]), float(scale), q.dtype)
    if a.is_causal:
        mask = _causal(b, q.shape[-2], k.shape[-2])
    if mask is not None and mask.dtype == "b1":
        weights = b.emit("where", [mask, weights, b.scalar(float("-inf"), q.dtype)])
    elif mask is not None:
        weights = b.emit("add", [weights, b.cast(mask, q.dtype)])
    return b.emit("matmul", [b.emit("softmax", [weights], axis=len(weights.shape) - 1), v])


def _causal(b: Builder, rows: int, columns: int) -> Value:
    """Which key each query may see: none after it."""
    if not b.open_sizes:
        return b.const(np.tril(np.ones((rows, columns), bool)))
    return b.emit("ge", [b.emit("unsqueeze", [positions(b, rows)], axes=(1,)), positions(b, columns)])
