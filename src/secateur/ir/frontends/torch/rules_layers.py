"""Rules of layers: ATen calls of convolution, normalisation, pooling, resizing, attention, recurrence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from secateur.ir.frontends.torch.rules_products import attention
from secateur.ir.graph import Value

from .build import Args, Builder, Result, Rule, Skip, axis_of, ints, optional
from .rules_index import unfolded
from .rules_math import max_or_min
from .rules_recurrent import RECURRENT


def _batched(b: Builder, x: Value, rank: int, make: Callable[[Value], Value]) -> Value:
    """Run a layer on an input that may lack the batch axis."""
    if len(x.shape) == rank:
        return make(x)
    return b.emit("squeeze", [make(b.emit("unsqueeze", [x], axes=(0,)))], axes=(0,))


def _conv(b: Builder, a: Args) -> Value:
    x, w = a.input, a.weight
    d = len(w.shape) - 2
    own = _of_each_sample(b, x, w, a)
    if own is not None:
        return own
    stride, dilation = ints(a.stride, d), ints(a.dilation, d)
    if a.get("transposed"):
        return _batched(b, x, d + 2, lambda v: _transposed(b, v, a, d))
    if any(a.get("output_padding", ())):
        raise Skip("output_padding of a convolution that is not transposed")
    padding = a.padding
    if isinstance(padding, str):
        total = [dilation[i] * (w.shape[2 + i] - 1) if padding == "same" else 0 for i in range(d)]
        pad = (*(t // 2 for t in total), *(t - t // 2 for t in total))
    else:
        pad = ints(padding, d) * 2
    return _batched(b, x, d + 2, lambda v: b.emit(
        "conv", optional(v, w, a.bias), stride=stride, dilation=dilation, pad=pad, groups=int(a.groups)
    ))  # fmt: skip


_PLACES = 128  # of a kernel of which each is a slice of its own


def _of_each_sample(b: Builder, x: Value, w: Value, a: Args) -> Value | None:
    """A convolution of every sample with weights of its own, spelt as groups over the batch, as a product per sample.

    Weights that are computed from data are stacked along the batch; so are the samples' channels. Each sample's may be
    in groups again, as in correlation channel by channel.
    """
    if len(w.shape) != 4 or len(x.shape) != 4 or x.shape[0] != 1 or b.array(w) is not None or a.get("transposed"):
        return None
    maker, groups = b.made.get(x.name), int(a.groups)
    source = b.values[maker.inputs[0] or ""] if maker is not None and maker.op == "reshape" else x
    if len(source.shape) != 4 or groups % source.shape[0] or source.shape[2:] != x.shape[2:] or b.depends_on_none(w):
        return None
    if a.bias is not None or isinstance(a.padding, str) or w.shape[0] % groups:
        return None
    count, own = source.shape[0], groups // source.shape[0]  # samples, and groups of each
    if source.shape[1] != own * w.shape[1] or math.prod(w.shape[2:]) > _PLACES:
        return None
    windows = unfolded(b, source, w.shape[2:], ints(a.dilation, 2), ints(a.padding, 2), ints(a.stride, 2))
    rows = w.shape[0] // groups
    if own > 1:
        windows = b.reshape(windows, (count, own, windows.shape[1] // own, windows.shape[2]))
        each = b.emit("matmul", [b.reshape(w, (count, own, rows, windows.shape[2])), windows])
        return b.reshape(b.reshape(each, (count, own * rows, *a.shape[2:])), a.shape)
    each = b.emit("matmul", [b.reshape(w, (groups, rows, windows.shape[1])), windows])
    return b.reshape(b.reshape(each, (groups, rows, *a.shape[2:])), a.shape)


def _transposed(b: Builder, x: Value, a: Args, d: int) -> Value:
    return b.emit(
        "conv_transpose", optional(x, a.weight, a.bias), stride=ints(a.stride, d), dilation=ints(a.dilation, d),
        pad=ints(a.padding, d) * 2, output_padding=ints(a.output_padding, d), groups=int(a.groups),
    )  # fmt: skip


def _conv_transpose(b: Builder, a: Args) -> Value:
    d = len(a.weight.shape) - 2
    return _batched(b, a.input, d + 2, lambda v: _transposed(b, v, a, d))


def _batch_norm(b: Builder, a: Args) -> Value:
    if a.running_mean is None and a.running_var is None:
        return _of_the_batch(b, a)
    if a.get("training") or a.running_mean is None:
        raise Skip("batch_norm with the statistics of the batch")
    momentum = a.get("momentum", 0.1)
    return b.emit(
        "batch_norm", [a.input, a.weight, a.bias, a.running_mean, a.running_var],
        eps=float(a.eps), momentum=None if momentum is None else float(momentum),
    )  # fmt: skip


def _of_the_batch(b: Builder, a: Args) -> Value:
    """Batch norm that keeps no statistics: those of the batch, in eval mode too."""
    a.shown("training", "momentum")
    x: Value = a.input
    axes = (0, *range(2, len(x.shape)))
    along = tuple(-1 if i == 1 else 1 for i in range(len(x.shape)))
    mean = b.emit("reduce_mean", [x], axes=axes, keepdims=True)
    spread = b.emit("reduce_var", [x], axes=axes, keepdims=True, correction=0)
    root = b.emit("sqrt", [b.emit("add", [spread, b.scalar(float(a.eps), x.dtype)])])
    y = b.emit("div", [b.emit("sub", [x, mean]), root])
    y = y if a.weight is None else b.emit("mul", [y, b.reshape(a.weight, along)])
    return y if a.bias is None else b.emit("add", [y, b.reshape(a.bias, along)])


def _batch_norm_many(b: Builder, a: Args) -> Result:
    """Variants of batch_norm that also return statistics nobody reads."""
    return (_batch_norm(b, a), None, None)


def _layer_norm(b: Builder, a: Args) -> Value:
    a.shown("cudnn_enable")
    return b.emit("layer_norm", optional(a.input, a.weight, a.bias), dims=len(a.normalized_shape), eps=float(a.eps))


def _rms_norm(b: Builder, a: Args) -> Value:
    eps = float(np.finfo(np.float32).eps) if a.eps is None else float(a.eps)
    return b.emit("rms_norm", optional(a.input, a.weight), dims=len(a.normalized_shape), eps=eps)


def _group_norm(b: Builder, a: Args) -> Value:
    groups = a.get("num_groups", a.get("group"))
    return b.emit("group_norm", optional(a.input, a.weight, a.bias), groups=int(groups), eps=float(a.eps))


def _instance_norm(b: Builder, a: Args) -> Value:
    if not a.use_input_stats:
        b.train_as = "instance_norm"
        return _batch_norm(b, a)
    if a.running_mean is not None or a.running_var is not None:
        raise Skip("instance_norm that updates its statistics")
    a.shown("momentum")
    return b.emit("instance_norm", optional(a.input, a.weight, a.bias), eps=float(a.eps))


def _first_of(rule: Rule) -> Rule:
    """The rule's value where the call returns more that nobody reads."""
    return lambda b, a: (rule(b, a), None, None)


def _max_pool(d: int) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        kernel = ints(a.kernel_size, d)
        stride = ints(a.stride, d) if a.stride not in (None, []) else kernel
        return _batched(b, a.self, d + 2, lambda v: b.emit(
            "max_pool", [v], kernel=kernel, stride=stride, dilation=ints(a.dilation, d),
            pad=ints(a.padding, d) * 2, ceil=bool(a.ceil_mode),
        ))  # fmt: skip

    return rule


def _avg_pool(d: int) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        kernel = ints(a.kernel_size, d)
        stride = ints(a.stride, d) if a.stride not in (None, []) else kernel
        divisor, ceil, pad = a.get("divisor_override"), bool(a.ceil_mode), ints(a.padding, d) * 2
        inside = bool(a.count_include_pad) or divisor is not None

        def pool(v: Value) -> Value:
            if divisor is not None and ceil:  # a sum: zeros after the end are as good as windows that are cut off there
                if any(p + step > k for k, step, p in zip(kernel, stride, pad, strict=False)):
                    raise Skip("a divisor, and windows that may stand beyond the end")
                behind = [p + step - 1 for step, p in zip(stride, pad, strict=False)]  # too little for a further window
                v = b.emit("pad", [v], pads=(0, 0, *pad[:d], 0, 0, *behind), mode="constant", value=0.0)
                return b.emit("avg_pool", [v], kernel=kernel, stride=stride, pad=(0,) * (2 * d), ceil=False,
                              include_pad=True)  # fmt: skip
            return b.emit("avg_pool", [v], kernel=kernel, stride=stride, pad=pad, ceil=ceil, include_pad=inside)

        means = _batched(b, a.self, d + 2, pool)
        return means if divisor is None else b.binary("mul", means, math.prod(kernel) / divisor, a.dtype)

    return rule


def _adaptive(op: str, d: int) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        x = a.self
        rank = len(x.shape)
        given = a.output_size if isinstance(a.output_size, list | tuple) else [a.output_size] * d
        given = list(given) * (d if len(given) == 1 else 1)
        size = tuple(x.shape[rank - d + i] if s is None else int(s) for i, s in enumerate(given))
        if all(s == 1 for s in size):
            kind = "reduce_mean" if op == "adaptive_avg_pool" else "reduce_max"
            return b.emit(kind, [x], axes=tuple(range(rank - d, rank)), keepdims=True)
        if size == x.shape[rank - d :]:
            value: Value = x
            return value
        return b.emit(op, [x], size=size)

    return rule


def _adaptive_max(d: int) -> Rule:
    inner = _adaptive("adaptive_max_pool", d)
    return lambda b, a: (inner(b, a), None) if isinstance(a.meta, list | tuple) else inner(b, a)


def _prelu(b: Builder, a: Args) -> Value:
    w = a.weight
    if w.shape == (1,) and len(a.self.shape) < 2:
        w = b.reshape(w, (1,) * len(a.self.shape))
    return b.emit("prelu", [a.self, w])


def _resize(mode: str, exact: bool = False) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        x = a.get("input", a.get("self"))
        d = len(x.shape) - 2
        a.shown("output_size")
        factors = a.get("scale_factors")
        if not factors:
            single = [a.get(k) for k in ("scales_d", "scales_h", "scales_w", "scales")]
            single = [f for f in single if f is not None]
            factors = single if len(single) == d else None
        aligned = bool(a.get("align_corners", False))
        coordinate = "align_corners" if aligned else "half_pixel" if mode != "nearest" or exact else "asymmetric"
        rounding = "round_prefer_ceil" if exact else "floor"
        size = None if factors else tuple(a.shape[2:])
        scales = tuple(float(f) for f in factors) if factors else None
        return b.emit(
            "resize", [x], mode=mode, size=size, scales=scales, coordinate=coordinate, rounding=rounding,
        )  # fmt: skip

    return rule


def _sdpa_many(b: Builder, a: Args) -> Result:
    return (attention(b, a), *[None] * (len(a.meta) - 1))


def _cross_axis(b: Builder, a: Args) -> Value:
    """cosine_similarity-free softmax2d and the like are composites; softmin is softmax of -x."""
    return b.emit("softmax", [b.emit("neg", [a.self])], axis=axis_of(a.dim, len(a.self.shape)))


LAYERS: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution"), _conv),
        **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
        "batch_norm": _batch_norm, "cudnn_batch_norm": _batch_norm_many, "native_batch_norm": _batch_norm_many,
        "_native_batch_norm_legit_no_training": _batch_norm_many,
        "layer_norm": _layer_norm, "native_layer_norm": _first_of(_layer_norm), "rms_norm": _rms_norm,
        "group_norm": _group_norm, "instance_norm": _instance_norm,
        **{f"max_pool{d}d": _max_pool(d) for d in (1, 2, 3)},
        **{f"max_pool{d}d_with_indices": _first_of(_max_pool(d)) for d in (1, 2, 3)},
        **{f"avg_pool{d}d": _avg_pool(d) for d in (1, 2, 3)},
        **{f"adaptive_avg_pool{d}d": _adaptive("adaptive_avg_pool", d) for d in (1, 2, 3)},
        "_adaptive_avg_pool2d": _adaptive("adaptive_avg_pool", 2),
        **{f"adaptive_max_pool{d}d": _adaptive_max(d) for d in (1, 2, 3)},
        "prelu": _prelu, "_prelu_kernel": _prelu,
        **{f"upsample_nearest{d}d": _resize("nearest") for d in (1, 2, 3)},
        **{f"_upsample_nearest_exact{d}d": _resize("nearest", True) for d in (1, 2, 3)},
        "upsample_linear1d": _resize("linear"), "upsample_bilinear2d": _resize("linear"),
        "upsample_trilinear3d": _resize("linear"), "upsample_bicubic2d": _resize("cubic"),
        "scaled_dot_product_attention": attention,
        "_scaled_dot_product_flash_attention_for_cpu": _sdpa_many,
        **RECURRENT,
        "max": max_or_min("reduce_max"), "min": max_or_min("reduce_min"), "softmin": _cross_axis,
    }
)  # fmt: skip
