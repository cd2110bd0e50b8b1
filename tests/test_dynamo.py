"""torch.compile with secateur as its backend."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
import torch
from torch import fx, nn

from secateur.dynamo import _Compiled, backend
from secateur.ir import InputError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()


def test_torch_compile_finds_it_by_name_and_follows_weights_and_shapes() -> None:
    found = entry_points(group="torch_dynamo_backends", name="secateur")
    assert [entry.load() for entry in found] == [backend]
    module = network()
    fast = torch.compile(module, backend="secateur")
    with torch.no_grad():
        for batch in (1, 2):
            x = torch.randn(batch, 3, 8, 8)
            torch.testing.assert_close(fast(x), module(x))
        module[0].weight.mul_(2)
        torch.testing.assert_close(fast(x), module(x))


def test_weights_of_a_library_stay_where_they_are() -> None:
    x, graph = torch.randn(1, 3, 8, 8), fx.symbolic_trace(Product())
    made = backend(graph, [nn.Parameter(torch.randn(4, 192)), x])
    assert isinstance(made, _Compiled)
    held = nn.Parameter(torch.randn(4, 192), requires_grad=False)
    torch.testing.assert_close(made(held, x)[0], graph(held, x)[0])
    place = held.data_ptr()
    del held  # its memory must not become another weight's, which would be taken for this one
    assert place in [w.data_ptr() for _, weights in made._libraries.values() for w in weights]
    with torch.inference_mode():
        held = nn.Parameter(torch.randn(4, 192), requires_grad=False)
    with pytest.warns(UserWarning, match="made in inference mode"):
        made(held, x)


class Product(nn.Module):
    """A weight among the inputs, as TorchDynamo hands it over."""

    def forward(self, weight: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (nn.functional.linear(x.flatten(1), weight),)


def test_gradients_are_computed_by_torch_and_said() -> None:
    module, x = network(), torch.randn(1, 3, 8, 8, requires_grad=True)
    made = backend(fx.symbolic_trace(module), [x])
    with pytest.warns(UserWarning, match=r"under torch\.no_grad"):
        made(x)[0].sum().backward()
    assert x.grad is not None


def test_what_has_no_code_runs_as_it_is_and_is_said() -> None:
    class Count(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (torch.bincount(x),)

    x = torch.tensor([1, 2, 2])
    made = backend(fx.symbolic_trace(Count()), [x])
    with pytest.warns(UserWarning, match="runs in PyTorch as it is"):
        assert made(x)[0].tolist() == [0, 1, 2]


def test_unknown_options_and_modes_are_refused() -> None:
    module, x = fx.symbolic_trace(network()), torch.randn(1, 3, 8, 8)
    with pytest.raises(InputError, match="does not know the option 'thread'; it takes target, tune, threads"):
        backend(module, [x], options={"thread": 2})
    with pytest.raises(InputError, match="does not know mode='max-autotune'"):
        backend(module, [x], mode="max-autotune")
