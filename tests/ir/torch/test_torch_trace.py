"""Torch in and out: the graph of a module computes what the module computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from secateur.ir import InputError, Sym, Unsupported, verify

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from secateur.ir.exporters.torch.module import evaluate, to_module  # noqa: E402
from secateur.ir.frontends.torch.trace import trace  # noqa: E402


def randomise(module: nn.Module) -> nn.Module:
    """Statistics and zero-initialised parameters that would hide mistakes become random."""
    torch.manual_seed(0)
    for child in module.modules():
        if getattr(child, "running_mean", None) is not None:
            child.running_mean.normal_(0, 0.1)
            child.running_var.uniform_(0.5, 2)
    for parameter in module.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.02)
    return module


def check(module: nn.Module, *inputs: Any, dynamic_batch: bool = False) -> Any:
    """Trace, compare with the module through the executor and the exported module; returns the graph."""
    randomise(module).eval()
    graph = verify(trace(module, inputs, dynamic_batch=dynamic_batch))
    with torch.no_grad():
        want = [t.numpy() for t in torch.utils._pytree.tree_leaves(module(*inputs))]
    feeds = {v.name: x.numpy() for v, x in zip(graph.inputs, inputs, strict=True)}
    out = to_module(graph)
    with torch.no_grad():
        written = [t.numpy() for t in torch.utils._pytree.tree_leaves(out(*inputs))]
    for have in (evaluate(graph, feeds), written):
        for a, b in zip(have, want, strict=True):
            assert a.shape == b.shape
            assert np.abs(a - b).max() <= 1e-5 * max(np.abs(b).max(), 1e-6)
    return graph


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Any], **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


class ScaledConv(nn.Conv2d):
    """A convolution that normalises its weight before use, as NFNets do."""

    def forward(self, x: Any) -> Any:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def _in_place(m: Any, x: Any) -> Any:
    y = m.conv(x)
    y[:, :2] = 0.5
    y[:, 1::2] = y[:, ::2].sigmoid()
    y = F.relu_(y)
    y += 1
    return y.mul_(2)


def _imposed(m: Any, x: Any) -> Any:
    mask = x.new_zeros((4, 4))
    mask[1:, :2] = 3
    return m.conv(x)[..., :4, :4] + mask


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CORNERS: dict[str, Callable[[], nn.Module]] = {
    "same": lambda: nn.Conv2d(3, 4, 4, padding="same"),
    "shared": lambda: Lambda(lambda m, x: m.conv(m.conv(x)), conv=nn.Conv2d(3, 3, 1)),
    "scaled": lambda: nn.Sequential(ScaledConv(3, 4, 3), nn.ReLU()),
    "in_place": lambda: Lambda(_in_place, conv=nn.Conv2d(3, 4, 3)),
    "mask": lambda: Lambda(_imposed, conv=nn.Conv2d(3, 4, 3)),
    "dict": lambda: Lambda(lambda m, x: {"a": m.conv(x), "b": [x + 1, x * 2]}, conv=nn.Conv2d(3, 4, 3)),
    "lstm": lambda: Lambda(
        lambda m, x: m.rnn(x.flatten(2))[0], rnn=nn.LSTM(64, 5, num_layers=2, bidirectional=True, batch_first=True)
    ),
    "gru": lambda: Lambda(lambda m, x: m.rnn(x.flatten(2))[0], rnn=nn.GRU(64, 5)),
    "deconv": lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
    "up": lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.PixelUnshuffle(2), nn.Softmax(1)),
    "opaque": lambda: Lambda(lambda m, x: torch.special.i0(m.conv(x)), conv=nn.Conv2d(3, 4, 3)),
    "attention": lambda: Lambda(
        lambda m, x: m.mha(x.flatten(2), x.flatten(2), x.flatten(2))[0], mha=nn.MultiheadAttention(64, 4)
    ),
    "roll": lambda: Lambda(lambda m, x: torch.roll(x, (1, -1), (2, 3)).unflatten(1, (3, 1)).flip(3)),
    "index": lambda: Lambda(lambda m, x: x[:, torch.tensor([2, 0, 1])]),
}


@pytest.mark.parametrize("name", CORNERS)
def test_odd_corners(name: str) -> None:
    graph = check(CORNERS[name](), X)
    opaque = [n for n in graph.nodes if n.op == "opaque"]
    assert len(opaque) == (1 if name == "opaque" else 0)


def test_a_normalised_weight_becomes_one_weight_under_a_name_of_its_own() -> None:
    graph = check(CORNERS["scaled"](), X)
    assert set(graph.weights) == {"0.weight_folded", "0.bias"}


def test_writing_into_every_other_channel_has_an_onnx_form() -> None:
    assert all(node.op != "opaque" for node in trace(CORNERS["in_place"](), (X,)).nodes)


def test_structure_of_outputs_is_kept() -> None:
    module = to_module(trace(CORNERS["dict"](), (X,)))
    out = module(X)
    assert list(out) == ["a", "b"]
    assert len(out["b"]) == 2


@pytest.mark.parametrize("name", ["same", "shared", "dict"])
def test_a_free_batch_takes_other_batches(name: str) -> None:
    module = CORNERS[name]().eval()
    graph = trace(module, (X[:1],))
    assert isinstance(graph.inputs[0].shape[0], Sym)
    want = torch.utils._pytree.tree_leaves(module(X))[0].detach().numpy()
    np.testing.assert_allclose(evaluate(graph, {graph.inputs[0].name: X.numpy()})[0], want, rtol=1e-4, atol=1e-5)


def test_the_module_is_left_as_it_was_and_shares_memory() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    module[2].eval()
    graph = trace(module, (X,))
    assert module.training
    assert not module[2].training
    assert np.shares_memory(graph.weights["0.weight"], module[0].weight.detach().numpy())


def test_the_exported_module_trains_saves_and_is_captured_again() -> None:
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(1))
    graph = trace(source, (X,))
    module = to_module(graph)
    assert set(module.state_dict()) == set(source.state_dict())
    module.train()
    before = module.state_dict()["1.running_mean"].clone()
    module(X).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert not torch.equal(before, module.state_dict()["1.running_mean"])
    source.load_state_dict(module.state_dict())
    again = trace(module, (X,))
    np.testing.assert_allclose(
        evaluate(again, {again.inputs[0].name: X.numpy()})[0], source.eval()(X).detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_an_exported_program_is_taken() -> None:
    module = nn.Conv2d(3, 4, 3).eval()
    graph = trace(torch.export.export(module, (X,)))
    np.testing.assert_allclose(
        evaluate(graph, {graph.inputs[0].name: X.numpy()})[0], module(X).detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="example_inputs are missing"):
        trace(nn.Conv2d(3, 4, 3))
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module"):
        trace("net")  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match=r"torch\.export.*torch\.fx"):
        trace(nn.Conv2d(5, 4, 3), (X,))


def _swin(models: Any) -> nn.Module:
    """Windows that shift, in few layers: swin_v2_t itself has twelve."""
    swin = models.swin_transformer
    sizes: dict[str, Any] = {"patch_size": [4, 4], "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}
    made: nn.Module = swin.SwinTransformer(
        **sizes, window_size=[4, 4], block=swin.SwinTransformerBlockV2, downsample_layer=swin.PatchMergingV2
    )
    return made


# One of each kind: ``bench.reach.zoos`` has all of both packages.
@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "swin_v2", "squeezenet1_1"])
def test_torchvision(name: str) -> None:
    pytest.importorskip("bench.data.torchvision_shim")
    models = pytest.importorskip("torchvision.models")
    module = _swin(models) if name == "swin_v2" else models.get_model(name, weights=None)
    graph = check(module, torch.randn(1, 3, 64, 64))
    assert module.state_dict().keys() <= to_module(graph, copy=False).state_dict().keys()


@pytest.mark.parametrize("name", ["resnest14d", "edgenext_xx_small", "efficientnet_cc_b0_4e"])
def test_timm(name: str) -> None:
    pytest.importorskip("bench.data.torchvision_shim")
    timm = pytest.importorskip("timm")
    graph = check(timm.create_model(name, pretrained=False), torch.randn(1, 3, 64, 64))
    assert all(n.op != "opaque" for n in graph.nodes)
