"""Arguments of ATen calls: each is computed with, or keeps its call word for word; none is passed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from secateur.ir.errors import VerifyError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from secateur.ir.exporters.torch.module import to_module  # noqa: E402
from secateur.ir.frontends.torch.build import Args, Builder  # noqa: E402
from secateur.ir.frontends.torch.trace import trace  # noqa: E402

aten = torch.ops.aten
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(2, 4, 6, 6, generator=GENERATOR) * 3
Y = torch.randn(2, 4, 6, 6, generator=GENERATOR) * 3
Z = torch.complex(X, Y)
I = torch.randint(-9, 9, (2, 4, 6, 6), generator=GENERATOR)  # noqa: E741
W, B = torch.randn(3, 4, 3, 3, generator=GENERATOR), torch.randn(3, generator=GENERATOR)
M, V = torch.randn(6, 6, generator=GENERATOR), torch.rand(4, generator=GENERATOR) + 0.5

# Every overload of a rule's call that takes more than tensors, with arguments that are not its defaults.
CALLS: dict[str, Callable[[], Any]] = {
    "add_alpha": lambda: torch.add(X, Y, alpha=2),
    "add_scalar_alpha": lambda: aten.add.Scalar(X, 3, 2),
    "add_complex": lambda: X + Z,
    "sub_alpha": lambda: torch.sub(X, Y, alpha=-0.5),
    "rsub_alpha": lambda: torch.rsub(X, Y, alpha=3),
    "rsub_scalar_alpha": lambda: aten.rsub.Scalar(X, 2, 3),
    "div_floor": lambda: torch.div(X, 0.1, rounding_mode="floor"),
    "div_floor_exact": lambda: torch.div(torch.arange(1, 9.0).view(2, 4) + X.sum() * 0, 0.1, rounding_mode="floor"),
    "div_floor_tensor": lambda: torch.div(X, Y, rounding_mode="floor"),
    "div_trunc": lambda: torch.div(X, 0.7, rounding_mode="trunc"),
    "div_integers": lambda: torch.div(I, 4),
    "div_integers_floor": lambda: torch.div(I, 4, rounding_mode="floor"),
    "div_floor_zero": lambda: torch.floor_divide(X, torch.tensor([0.0, 0.3, -0.7, 2.0, 1.0, -3.0])),
    "floor_divide_integers": lambda: torch.floor_divide(I - 3, torch.tensor([2, -3, 5, 7, -1, 1])),
    "div_integers_trunc": lambda: torch.div(I, 4, rounding_mode="trunc"),
    "remainder": lambda: torch.remainder(X, -0.7),
    "remainder_scalar": lambda: torch.remainder(2.5, X),
    "remainder_integers": lambda: torch.remainder(I, -4),
    "round_decimals": lambda: torch.round(X, decimals=2),
    "round_negative_decimals": lambda: torch.round(X * 100, decimals=-1),
    "pow_integers": lambda: torch.pow(I, 3),
    "pow_scalar": lambda: torch.pow(2, X),
    "pow_half": lambda: torch.pow(X.abs(), -0.5),
    "square_integers": lambda: torch.square(I),
    "clamp_integers": lambda: torch.clamp(I, -1.5, 2.5),
    "clamp_tensors": lambda: torch.clamp(X, Y, Y + 1),
    "clamp_min": lambda: torch.clamp_min(X, 0.5),
    "clamp_max": lambda: aten.clamp_max.Tensor(X, Y),
    "hardtanh": lambda: F.hardtanh(X, -2, 0.5),
    "elu_alpha": lambda: F.elu(X, 2.0),
    "elu_scales": lambda: aten.elu(X, 1.5, 2.0, 0.5),
    "celu": lambda: F.celu(X, 0.5),
    "leaky_relu": lambda: F.leaky_relu(X, 0.3),
    "gelu_tanh": lambda: F.gelu(X, approximate="tanh"),
    "softplus": lambda: F.softplus(X, 2, 1),
    "softmax_dtype": lambda: torch.softmax(X, 1, dtype=torch.float64),
    "log_softmax_dtype": lambda: torch.log_softmax(I, -1, dtype=torch.float32),
    "sum_dtype": lambda: torch.sum(X, (1, -1), keepdim=True, dtype=torch.float64),
    "sum_integers": lambda: torch.sum(I > 0, 1),
    "mean_dtype": lambda: torch.mean(I, (2, 3), dtype=torch.float32),
    "mean_all": lambda: X.mean(),
    "prod_keepdim": lambda: torch.prod(X, 2, keepdim=True),
    "prod_dtype": lambda: torch.prod(I, 1, dtype=torch.float64),
    "amax_keepdim": lambda: torch.amax(X, (1, 2), keepdim=True),
    "max_dim": lambda: torch.max(X, 1, keepdim=True),
    "max_other": lambda: torch.max(X, Y),
    "min_integers": lambda: torch.min(I, -1),
    "logsumexp": lambda: torch.logsumexp(X, (1, 2), keepdim=True),
    "var_biased": lambda: torch.var(X, unbiased=False),
    "var_correction": lambda: torch.var(X, (2, 3), correction=3, keepdim=True),
    "var_part": lambda: torch.var(X, (2, 3), correction=0.5),
    "std_dim_biased": lambda: torch.std(X, (1,), unbiased=False, keepdim=True),
    "std_mean": lambda: torch.std_mean(X, (2, 3), correction=0, keepdim=True),
    "var_mean_complex": lambda: torch.var_mean(Z, (2, 3)),
    "norm": lambda: torch.norm(X, 1, 2, True),
    "norm_order": lambda: torch.norm(X, 3, (2, 3)),
    "norm_infinite": lambda: torch.linalg.vector_norm(X, float("inf"), (1,)),
    "norm_dtype": lambda: torch.linalg.vector_norm(X, 2, (1,), dtype=torch.float64),
    "norm_complex": lambda: torch.linalg.vector_norm(Z, 2, (1,)),
    "argmax_flat": lambda: torch.argmax(X),
    "argmin_keepdim": lambda: torch.argmin(X, -2, keepdim=True),
    "cumsum_dtype": lambda: torch.cumsum(I, 1, dtype=torch.float32),
    "addmm": lambda: torch.addmm(M, M, M + X[0, 0], beta=0.5, alpha=2),
    "baddbmm": lambda: torch.baddbmm(Y[0], X[0], Y[1], beta=2, alpha=0.5),
    "addcmul": lambda: torch.addcmul(X, Y, X, value=-2),
    "lerp": lambda: torch.lerp(X, Y, 0.3),
    "glu": lambda: F.glu(X, 1),
    "einsum": lambda: torch.einsum("nchw,nkhw->nck", X, Y),
    "where_numbers": lambda: torch.where(X > 0, 1.0, Y),
    "masked_fill": lambda: torch.masked_fill(I, X > 0, 7),
    "compare_mixed": lambda: torch.gt(I, 1.5),
    "compare_complex": lambda: torch.eq(Z, 1.0),
    "bitwise": lambda: torch.bitwise_and(I, 6),
    "logical": lambda: torch.logical_xor(I, X > 0),
    "abs_complex": lambda: Z.abs(),
    "angle": lambda: Z.angle() + Z.real * Z.imag,
    "mul_complex": lambda: (Z * 2 + X) * Z.conj(),
    "to_complex": lambda: X.to(torch.complex64) * Z,
    "to_real": lambda: Z.to(torch.complex128).abs().to(torch.float32),
    "view_dtype": lambda: X.view(torch.int32),
    "flatten": lambda: X.flatten(1, 2),
    "unflatten": lambda: X.unflatten(1, (2, -1)),
    "movedim": lambda: X.movedim((1, -1), (0, 2)),
    "tensor_split": lambda: torch.tensor_split(X, (1, 5), 2),
    "chunk_uneven": lambda: torch.chunk(X, 4, 3),
    "split_uneven": lambda: torch.split(X, 4, -1),
    "slice_step": lambda: X[:, 1::2, -5:-1:3],
    "select_negative": lambda: X.select(-1, -2),
    "index_two": lambda: X[:, [0, 3], [1, -1]],
    "roll_flat": lambda: torch.roll(X, 3),
    "pad_value": lambda: F.pad(X, (1, 0, -1, 2), value=1.5),
    "pad_reflect": lambda: F.pad(X, (2, 1, 0, 3), mode="reflect"),
    "pad_circular": lambda: F.pad(X, (2, 1, 0, 3), mode="circular"),
    "pixel_unshuffle": lambda: F.pixel_unshuffle(X, 3),
    "channel_shuffle": lambda: F.channel_shuffle(X, 2),
    "repeat": lambda: X.repeat(2, 1, 1, 3, 1),
    "conv": lambda: F.conv2d(X, W, B, (2, 1), (1, 2), (1, 2)),
    "conv_same": lambda: F.conv2d(X, W[..., :2], None, 1, "same"),
    "conv_general": lambda: aten.convolution(X, W, B, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    "conv_transposed": lambda: aten.convolution(X, W.transpose(0, 1), B, [2, 2], [1, 1], [1, 1], True, [1, 0], 1),
    "conv_transpose": lambda: F.conv_transpose2d(X, W.transpose(0, 1), B, 2, 1, (1, 0), 1, 2),
    "max_pool": lambda: F.max_pool2d(X, 3, 2, 1, dilation=2, ceil_mode=True),
    "max_pool_indices": lambda: F.max_pool2d(X, 2, return_indices=True)[0],
    "avg_pool": lambda: F.avg_pool2d(X, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "avg_pool_divisor": lambda: F.avg_pool2d(X, 3, 2, divisor_override=4),
    "adaptive": lambda: F.adaptive_avg_pool2d(X, (None, 4)),
    "adaptive_max": lambda: F.adaptive_max_pool2d(X, (1, 1)),
    "batch_norm": lambda: F.batch_norm(X, V, V + 1, V, None, eps=0.1),
    "batch_norm_training": lambda: F.batch_norm(X, None, None, V, None, training=True),
    "instance_norm": lambda: F.instance_norm(X, V, V + 1, V, None, use_input_stats=False, eps=0.1),
    "layer_norm": lambda: F.layer_norm(X, (6, 6), M, None, 0.1),
    "rms_norm": lambda: F.rms_norm(X, (6,), None, 0.5),
    "group_norm": lambda: F.group_norm(X, 2, V, None, 0.1),
    "nearest_size": lambda: F.interpolate(X, size=(9, 5)),
    "nearest_exact": lambda: F.interpolate(X, scale_factor=(1.5, 0.5), mode="nearest-exact"),
    "bilinear": lambda: F.interpolate(X, scale_factor=1.7, mode="bilinear", align_corners=True),
    "bilinear_recomputed": lambda: F.interpolate(X, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
    "bilinear_antialias": lambda: F.interpolate(X, scale_factor=0.5, mode="bilinear", antialias=True),
    "bicubic": lambda: F.interpolate(X, size=(9, 5), mode="bicubic"),
    "attention": lambda: F.scaled_dot_product_attention(X, Y, X, scale=0.3, is_causal=True),
    "attention_mask": lambda: F.scaled_dot_product_attention(X, Y, X, attn_mask=X[0, 0] > 0),
    "embedding": lambda: F.embedding(I.abs() % 4, M, padding_idx=0),
}  # fmt: skip


class Calls(nn.Module):
    """All calls on inputs, so that nothing is computed while they are read; one capture for all is quick."""

    def forward(self, x: Any, y: Any, i: Any) -> Any:
        globals().update(X=x, Y=y, Z=torch.complex(x, y), I=i)
        return {name: call() for name, call in CALLS.items()}


def test_every_argument_is_computed_with_or_keeps_the_call_as_it_is(monkeypatch: Any) -> None:
    for tensor in "XYZI":  # the module puts its inputs there
        monkeypatch.setitem(globals(), tensor, globals()[tensor])
    inputs = (X, Y, I)
    found = to_module(trace(Calls(), inputs, dynamic_batch=False))(*inputs)
    monkeypatch.undo()
    for name, call in CALLS.items():
        leaves = torch.utils._pytree.tree_leaves(found[name])
        for have, want in zip(leaves, torch.utils._pytree.tree_leaves(call()), strict=True):
            assert (have.shape, have.dtype) == (want.shape, want.dtype), name
            assert torch.allclose(have, want, rtol=1e-5, atol=1e-5, equal_nan=True), name


def test_an_argument_that_a_rule_does_not_ask_for_is_told_of() -> None:
    args = Args({"self": 1, "decimals": 2, "keepdim": False}, None, "aten.op", {"decimals": 0, "keepdim": False})
    assert args.get("self") == 1
    assert args.ignored() == ["decimals"]
    assert Args({"decimals": 0}, None, "aten.op", {"decimals": 0}).ignored() == []
    assert Args({"decimals": 0}, None, "aten.op", {}).ignored() == ["decimals"]  # no default: it must be asked for


def test_no_two_arrays_share_a_name() -> None:
    builder = Builder(["const.0", "conv.0"])
    one = builder.const(torch.ones(2).numpy())
    assert one.name == "const.1"  # the module has a buffer const.0, read or not
    assert builder.fresh("conv.0") == "conv.0_"
    assert builder.add_weight("const.1", torch.ones(2).numpy()) == one
    with pytest.raises(VerifyError, match="two different arrays"):
        builder.add_weight("const.1", torch.zeros(2).numpy())


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Any) -> Any:
        y = F.hardsigmoid(self.a(x) * 2.5 + 0.25)
        return self.b(y * torch.tensor([1.0, 2.0]).repeat(8)[:, None, None] + y.max(1, keepdim=True)[0])


def test_what_was_written_reads_as_itself_again_and_again() -> None:
    """Constants that the first reading made are the module's own buffers in the second."""
    torch.manual_seed(0)
    module: nn.Module = Scaled().eval()
    want = module(X)
    for _ in range(3):
        module = to_module(trace(module, (X,)))
        torch.testing.assert_close(module(X), want)


def test_names_of_the_module_and_of_its_calls_may_be_the_same() -> None:
    class Names(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x, self.add = nn.Parameter(torch.ones(4, 1, 1) * 2), nn.Parameter(torch.ones(1) * 3)
            self.const = nn.ParameterList([torch.ones(1) * 5])

        def forward(self, x: Any) -> Any:
            return (x + 1.5) * self.x + self.add * self.const[0]

    module = Names()
    out = to_module(trace(module, (X,)))
    torch.testing.assert_close(out(X), module(X))
    assert {n for n, _ in out.named_parameters()} == {"x", "add", "const.0"}
