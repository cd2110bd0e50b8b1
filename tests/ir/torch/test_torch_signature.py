"""A module takes the arguments that the original took; what cannot be read is refused by its line."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import secateur  # noqa: E402
from secateur.ir import Unsupported  # noqa: E402


class Takes(nn.Module):
    """Two pictures in some form."""

    def __init__(self, form: str = "") -> None:
        super().__init__()
        self.a, self.b, self.form = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 4, 1), form

    def forward(self, x: Any, y: Any = None, scale: float = 1.0, z: Any = None) -> Any:
        if self.form == "dict":
            x, y = x["left"], x["right"]
        elif self.form == "list":
            x, y = x[0], x[1]["inner"]
        y = x if y is None else y
        z = x if z is None else z
        return self.b(torch.relu(self.a(x) + self.a(y) * scale + self.a(z)))


def _x() -> Any:
    return torch.randn(2, 3, 8, 8)


CALLS = {
    "none": ("", lambda: (_x(), None)),
    "none between": ("", lambda: (_x(), None, 0.5, _x())),
    "number": ("", lambda: (_x(), _x(), 0.5)),
    "dict": ("dict", lambda: ({"left": _x(), "right": _x()},)),
    "nested": ("list", lambda: ([_x(), {"inner": _x()}],)),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_come_back_in_their_form(name: str) -> None:
    torch.manual_seed(0)
    form, make = CALLS[name]
    net, args = Takes(form).eval(), make()
    slim = secateur.compile(net, "none", example_inputs=args)
    with torch.no_grad():
        torch.testing.assert_close(slim.module()(*args), net(*args), rtol=1e-4, atol=1e-5)
    again = secateur.compile(slim.module(), "l1", example_inputs=args, macs=0.6)
    assert again.module()(*args).shape == (2, 4, 8, 8)
    assert again.report.after is not None


def test_arguments_that_were_left_out_may_be_left_out() -> None:
    slim = secateur.compile(Takes().eval(), "none", example_inputs=(_x(), None))
    assert slim.module()(_x()).shape == (2, 4, 8, 8)


class Decides(nn.Module):
    """Control flow on numbers."""

    def forward(self, x: Any) -> Any:
        return x * 2 if x.mean() > 0 else x  # decided here


def test_refusals_name_the_line_and_what_to_do() -> None:
    with pytest.raises(Unsupported, match=r"test_torch_signature\.py:\d+ \(return x \* 2 if .* # decided here\)"):
        secateur.compile(Decides(), "none", example_inputs=(_x(),))
    with pytest.raises(Unsupported, match=r"'0' is a lazy layer .* Run the module once"):
        secateur.compile(nn.Sequential(nn.LazyLinear(3)), "none", example_inputs=(_x(),))


def test_scripted_modules_are_refused_with_the_line_to_use() -> None:
    scripted = torch.jit.trace(Takes().eval(), (_x(),))
    with pytest.raises(Unsupported, match=r"torch\.jit module.*torch\.onnx\.export\("):
        secateur.compile(scripted, "none", example_inputs=(_x(),))


class Selects(nn.Module):
    """As many numbers as are positive."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        y = self.a(x)
        return y[y > 0]


def test_sizes_that_depend_on_data_are_refused_with_the_line() -> None:
    with pytest.raises(
        Unsupported, match=r"test_torch_signature\.py:\d+\): how much .* Compile the network up to there"
    ):
        secateur.compile(Selects(), "none", example_inputs=(torch.randn(2, 4),))


class Best(nn.Module):
    """The best places, in order, and what stands there."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x: Any) -> Any:
        y = self.b(torch.relu(self.a(x))).flatten(2)
        best, index = y.topk(5, 1 + 1)
        return best.sort(dim=2)[0], y.flip(1).gather(2, index)


def test_best_places_have_a_form_in_files(tmp_path: Any) -> None:
    import onnxruntime

    slim = secateur.compile(Best().eval(), "l1", example_inputs=(_x(),), macs=0.6)
    slim.save(tmp_path / "best.onnx")
    session, x = onnxruntime.InferenceSession(str(tmp_path / "best.onnx")), _x()
    with torch.no_grad():
        for have, want in zip(session.run(None, {"x": x.numpy()}), slim.module()(x), strict=True):
            torch.testing.assert_close(torch.from_numpy(have), want, rtol=1e-4, atol=1e-5)
