"""A network that takes any size still does, or says what holds it: never another answer than the original's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import secateur  # noqa: E402
from secateur.ir.exporters.torch.module import to_module  # noqa: E402
from secateur.ir.frontends.torch.trace import trace  # noqa: E402
from secateur.passes.masked import masked  # noqa: E402

GENERATOR = torch.Generator().manual_seed(0)


class Net(nn.Module):
    """Two convolutions with a function of the input and the features between them."""

    def __init__(self, between: Callable[[Any, Any], Any], stride: int = 1, channels: int = 8) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, stride, 1), nn.Conv2d(channels, 4, 1)
        self.between = between

    def forward(self, x: Any) -> Any:
        return self.b(self.between(x, F.relu(self.a(x))))


def _gate(_: Any, y: Any) -> Any:
    n, c, _, _ = y.size()
    return y * torch.sigmoid(y.mean((2, 3)).view(n, c, 1, 1)).expand_as(y)


def _axes(_: Any, y: Any) -> Any:
    """Pooled along either axis, joined and split again, as coordinate attention does."""
    height, width = y.shape[2:]
    joined = torch.cat([F.adaptive_avg_pool2d(y, (height, 1)), F.adaptive_avg_pool2d(y, (1, width)).mT], 2)
    rows, columns = torch.split(torch.sigmoid(joined), [height, width], 2)
    return y * rows * columns.mT


def _rows(_: Any, y: Any) -> Any:
    n, c, h, w = y.shape
    rows = y.permute(0, 2, 3, 1).reshape(n * h, w, c)
    return torch.softmax(rows, 1).view(n, h, w, c).permute(0, 3, 1, 2)


def _state(x: Any, y: Any) -> Any:
    return torch.cat([x.new_zeros(x.shape[0], 4, *y.shape[2:]) + 1, y[:, :4]], 1)


def _token(_: Any, y: Any) -> Any:
    n, c, h, w = y.shape
    tokens = torch.cat([y.new_ones(1, c, 1).repeat(n, 1, 1), y.flatten(2)], 2)
    return tokens[:, :, 1:].view(n, c, h, w) + tokens[:, :, :1, None]


def _strided(y: Any) -> Any:
    return y.view(-1, 4, y.shape[2], y.shape[3]).repeat(1, 2, 1, 1)[: y.shape[0]]


def _pads(x: Any, y: Any) -> Any:
    height, width = x.shape[2:]
    return F.pad(y, (0, -width % 5, 0, -height % 5))[:, :, :height, :width]


def _grid(_: Any, y: Any) -> Any:
    return y + torch.arange(y.shape[3]).to(y)


def _batch(_: Any, y: Any) -> Any:
    return y + torch.arange(y.shape[0]).to(y).view(-1, 1, 1, 1)


FREE: dict[str, Callable[[], nn.Module]] = {
    "resize": lambda: Net(lambda x, y: F.interpolate(y, size=x.shape[-2:], mode="bilinear"), stride=4),
    "resize_like": lambda: Net(lambda _, y: y + F.interpolate(F.max_pool2d(y, 2, ceil_mode=True), size=y.shape[2:])),
    "crop": lambda: Net(lambda x, y: F.pad(y, (1, 3, 2, 2))[:, :, : x.shape[2], : x.shape[3]]),
    "crop_middle": lambda: Net(lambda x, y: y[:, :, 1 : x.shape[2] - 1, 1 : x.shape[3] - 1]),
    "gate": lambda: Net(_gate),
    "axes": lambda: Net(_axes),
    "rows": lambda: Net(_rows),
    "state": lambda: Net(_state),
    "token": lambda: Net(_token),
    "half": lambda: Net(lambda _, y: y[:, :, : y.shape[2] // 2]),
    "strided": lambda: Net(lambda _, y: _strided(F.avg_pool2d(y, 5))),
    "pads": lambda: Net(_pads),
    "grid": lambda: Net(_grid),
    "batch": lambda: Net(_batch),
    "folded": lambda: Net(lambda _, y: (y.flatten(0, 1) * 2).view(y.shape[0], 8, -1).view(*y.shape)),
    "opaque": lambda: Net(lambda _, y: torch.special.i0(y)),
}


@pytest.mark.parametrize("name", FREE)
def test_what_follows_the_size_still_does(name: str) -> None:
    torch.manual_seed(0)
    module = FREE[name]().eval()
    graph = trace(module, (torch.randn(2, 3, 12, 14, generator=GENERATOR),))
    out = to_module(graph)
    for shape in ((2, 3, 12, 14), (5, 3, 12, 14), (1, 3, 19, 9), (3, 3, 32, 32)):
        x = torch.randn(*shape, generator=GENERATOR)
        torch.testing.assert_close(out(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resize", "gate", "state"])
def test_a_pruned_network_takes_the_sizes_that_the_original_takes(name: str) -> None:
    torch.manual_seed(0)
    module = FREE[name]().eval()
    slim = secateur.compile(module, "l1", example_inputs=(torch.randn(2, 3, 12, 14),), macs=0.6)
    x = torch.randn(3, 3, 19, 9)
    assert slim.module()(x).shape == module(x).shape
    assert not slim.report.remarks


def _root(_: Any, y: Any) -> Any:
    return y + torch.tensor([y.shape[3] ** 0.5])


def _path(_: Any, y: Any) -> Any:
    return y * 2 if y.shape[2] < 16 else y + 1


@pytest.mark.parametrize(
    ("between", "other", "why"),
    [
        (_root, (2, 3, 19, 9), r"add \(test_torch_sizes.py:\d+\) reads a constant that is computed from it"),
        (_path, (2, 3, 19, 14), r"forward takes another path at another size, from \w+ \(test_torch_sizes.py:\d+\) on"),
    ],
)
def test_what_cannot_follow_is_refused_at_other_sizes(between: Any, other: tuple[int, ...], why: str) -> None:
    torch.manual_seed(0)
    module = Net(between).eval()
    x = torch.randn(2, 3, 13, 14)
    slim = secateur.compile(module, "none", example_inputs=(x,))
    torch.testing.assert_close(slim.module()(x), module(x))
    with pytest.raises(ValueError, match=rf"input 'x' is {' x '.join(map(str, other))}, .*{why}"):
        slim.module()(torch.randn(*other))
    assert len([r for r in slim.report.remarks if "of the input is fixed" in r]) == 1


def test_no_guard_stands_where_nothing_is_fixed() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()  # takes one size alone
    slim = secateur.compile(module, "none", example_inputs=(torch.randn(2, 3, 8, 8),))
    assert "expect_sizes" not in slim.module().code
    assert slim.module()(torch.randn(7, 3, 8, 8)).shape == (7, 5)
    assert not slim.report.remarks


def _written(slim: secateur.Compiled, path: Any) -> Any:
    import onnxruntime

    slim.save(path)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", ["resize", "crop", "state", "half"])
def test_the_file_takes_the_sizes_that_the_module_takes(name: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    slim = secateur.compile(FREE[name]().eval(), "l1", example_inputs=(torch.randn(2, 3, 16, 16),), macs=0.8)
    session = _written(slim, tmp_path / "slim.onnx")
    assert session.get_inputs()[0].shape == ["N", 3, "H", "W"]
    x = torch.randn(3, 3, 24, 20)
    with torch.no_grad():
        want = slim.module().eval()(x)
    (have,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(have), want, rtol=1e-4, atol=1e-5)


def test_a_file_that_cannot_is_written_for_the_example(tmp_path: Any) -> None:
    net = Net(lambda _, y: F.adaptive_max_pool2d(y, 3).repeat(1, 1, 2, 2))
    slim = secateur.compile(net.eval(), "l1", example_inputs=(torch.randn(2, 3, 12, 12),), macs=0.8)
    assert any("takes the sizes of the example alone" in remark for remark in slim.report.remarks)
    assert _written(slim, tmp_path / "slim.onnx").get_inputs()[0].shape == ["N", 3, 12, 12]
    assert slim.module()(torch.randn(1, 3, 18, 15)).shape == (1, 4, 6, 6)


class Edges(nn.Module):
    """A graph network: features of vertices summed over edges, which are pairs of their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        near = torch.zeros(x.shape[0], y.shape[1]).index_add(0, edges[1], y[edges[0]])
        out: torch.Tensor = self.last(torch.relu(near))
        return out


def test_graphs_have_any_number_of_vertices_and_edges() -> None:
    torch.manual_seed(0)
    module = Edges().eval()
    slim = secateur.compile(module, example_inputs=(torch.randn(6, 8), torch.randint(0, 6, (2, 14))), macs=0.5)
    masks = to_module(masked(slim.dense, slim.recipe)).eval()
    x, edges = torch.randn(9, 8), torch.randint(0, 9, (2, 21))
    torch.testing.assert_close(to_module(slim.dense).eval()(x, edges), module(x, edges))
    torch.testing.assert_close(slim.module()(x, edges), masks(x, edges))
