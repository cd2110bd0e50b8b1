"""The operators of the IR: what each computes, its inputs and its attributes.

Semantics follow ONNX where ONNX and PyTorch agree, and are stated where they do not. Weights may
stand wherever a value may. ``pad`` of windows is ``(begin0, begin1, .., end0, end1, ..)``.

=====================  ==============================  ==========================================
operator               inputs                          attributes
=====================  ==============================  ==========================================
conv                   x, w[O, I/g, *k], b[O]?         stride dilation pad groups
conv_transpose         x, w[I, O/g, *k], b[O]?         stride dilation pad output_padding groups
linear                 x[.., I], w, b[O]?              transposed (w is [O, I], or [I, O] if true)
matmul                 a, b                            (NumPy's broadcasting)
einsum                 a, b, ..                        equation (no ellipsis, letters only)
batch_norm             x, w?, b?, mean, var            eps momentum
layer_norm, rms_norm   x, w?, b? (rms_norm: x, w?)     dims (trailing axes normalised) eps
group_norm             x, w[C]?, b[C]?                 groups eps
instance_norm          x, w[C]?, b[C]?                 eps
lrn                    x                               size alpha beta bias (ONNX's definition)
max_pool               x                               kernel stride dilation pad ceil
avg_pool               x                               kernel stride pad ceil include_pad
adaptive_avg_pool      x                               size
adaptive_max_pool      x                               size
prelu                  x, w                            (w[C] on axis 1, or broadcast if not 1-d)
softmax, log_softmax   x                               axis
add sub mul div pow    a, b                            (NumPy's broadcasting, dtype kept)
minimum maximum mod    a, b
eq ne lt le gt ge      a, b                            (result is b1)
and or xor             a, b
where                  c, a, b
concat                 a, b, ..                        axis
split                  x                               axis sizes
slice                  x                               axes starts ends steps (end >= END: to the end)
gather                 x, index                        axis (a scalar index drops the axis)
reshape                x                               shape (0 copies the input's dim, -1 is inferred)
flatten                x                               start end (inclusive)
transpose              x                               perm
squeeze, unsqueeze     x                               axes
expand                 x                               shape (broadcast; -1 or 1 keeps)
tile                   x                               repeats
pad                    x                               pads (all axes, begins then ends) mode value
roll                   x                               shifts axes
flip                   x                               axes
depth_to_space         x                               block mode (CRD or DCR)
space_to_depth         x                               block mode (CRD is torch's pixel_unshuffle)
resize                 x                               mode size scales coordinate rounding (spatial)
reduce_*               x                               axes keepdims (reduce_var also: correction)
argmax argmin          x                               axis keepdims
cumsum                 x                               axis
cast                   x                               to
lstm, gru              x[T,B,I], w, r, b?, h0?, c0?    hidden direction linear_before_reset (ONNX's
                                                       layout and gate order); y[T,D,B,H], h, (c)
opaque                 any                             kind target payload sizes?; shapes as recorded
=====================  ==============================  ==========================================

Element-wise operators of one input are in ``UNARY`` with their attributes.
``resize`` holds ``size`` or ``scales`` over the spatial axes, the other is None.
"""

from __future__ import annotations

END = 1 << 62  # the end of a slice that reaches the end of its axis, whatever its size

UNARY: dict[str, tuple[str, ...]] = {
    "identity": (), "relu": (), "sigmoid": (), "tanh": (), "silu": (), "mish": (), "erf": (),
    "exp": (), "log": (), "sqrt": (), "rsqrt": (), "neg": (), "abs": (), "floor": (), "ceil": (),
    "round": (), "sign": (), "reciprocal": (), "softsign": (), "not": (), "sin": (), "cos": (),
    "log_sigmoid": (), "hard_swish": (), "selu": (), "isnan": (),
    "gelu": ("approximate",),        # "none" or "tanh"
    "softplus": ("beta", "threshold"),
    "hard_sigmoid": ("alpha", "beta"),
    "elu": ("alpha",), "celu": ("alpha",), "leaky_relu": ("slope",),
    "clip": ("min", "max"),          # None where there is no bound
    "dropout": ("p",),
}  # fmt: skip

BINARY = frozenset({"add", "sub", "mul", "div", "pow", "minimum", "maximum", "mod"})
COMPARE = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor"})
REDUCE = frozenset(
    {"reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod", "reduce_l1", "reduce_l2",
     "reduce_var", "reduce_logsumexp"}
)  # fmt: skip
RESHAPES = frozenset({"reshape", "flatten", "squeeze", "unsqueeze"})  # the same numbers in the same order
ELEMENTWISE = frozenset(UNARY) | BINARY | COMPARE | {"where", "cast"}

ATTRS: dict[str, tuple[str, ...]] = {
    "conv": ("stride", "dilation", "pad", "groups"),
    "conv_transpose": ("stride", "dilation", "pad", "output_padding", "groups"),
    "linear": ("transposed",), "matmul": (), "einsum": ("equation",),
    "batch_norm": ("eps", "momentum"), "layer_norm": ("dims", "eps"), "rms_norm": ("dims", "eps"),
    "group_norm": ("groups", "eps"), "instance_norm": ("eps",),
    "lrn": ("size", "alpha", "beta", "bias"),
    "max_pool": ("kernel", "stride", "dilation", "pad", "ceil"),
    "avg_pool": ("kernel", "stride", "pad", "ceil", "include_pad"),
    "adaptive_avg_pool": ("size",), "adaptive_max_pool": ("size",),
    "prelu": (), "softmax": ("axis",), "log_softmax": ("axis",),
    "where": (), "concat": ("axis",), "split": ("axis", "sizes"),
    "slice": ("axes", "starts", "ends", "steps"), "gather": ("axis",), "reshape": ("shape",),
    "flatten": ("start", "end"), "transpose": ("perm",), "squeeze": ("axes",), "unsqueeze": ("axes",),
    "expand": ("shape",), "tile": ("repeats",), "pad": ("pads", "mode", "value"),
    "roll": ("shifts", "axes"), "flip": ("axes",),
    "depth_to_space": ("block", "mode"), "space_to_depth": ("block", "mode"),
    "resize": ("mode", "size", "scales", "coordinate", "rounding"),
    "argmax": ("axis", "keepdims"), "argmin": ("axis", "keepdims"), "cumsum": ("axis",),
    "cast": ("to",),
    "lstm": ("hidden", "direction"), "gru": ("hidden", "direction", "linear_before_reset"),
    "rnn": ("hidden", "direction", "activation"),
    "opaque": ("kind", "target", "payload", "sizes"),
    **UNARY,
    **{op: () for op in BINARY | COMPARE},
    **{op: ("axes", "keepdims") for op in REDUCE},
    "reduce_var": ("axes", "keepdims", "correction"),
}  # fmt: skip

OPTIONAL = {"opaque": frozenset({"sizes"})}  # numbers in a torch call that may follow the sizes of inputs
OPS = frozenset(ATTRS)
