"""``secateur compile --widths FILE``: layers by hand, in place of a budget."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secateur.cli.app import app
from secateur.cli.by_hand import ByHand, by_hand
from secateur.ir import InputError
from secateur.ir.exporters.onnx.write import save
from support.nets import residual


def run(folder: Path, text: str, *options: str) -> tuple[int, str, str]:
    save(residual(), folder / "in.onnx")
    (folder / "w.toml").write_text(text)
    command = ["compile", str(folder / "in.onnx"), str(folder / "out.onnx"), "--widths", str(folder / "w.toml")]
    done = CliRunner().invoke(app, [*command, "--json", "-", *options])
    return done.exit_code, done.stdout, done.stderr


def test_widths_and_channels_by_layer(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, '[widths]\nb = "50%"\n[drop]\nc = [0, 4, 8, 12]\n')
    assert code == 0, err
    layers = {row["name"]: row["widths"][1] for row in json.loads(out)["layers"]}
    assert (layers["b"], layers["c"], layers["a"][1]) == ([12, 12], [12, 12], 12)
    assert json.loads(out)["verification"]["passed"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("[width]\nb = 3", (), "unknown section 'width' (did you mean widths?)"),
        ("widths = 3", (), "'widths' stands alone; write it as a section"),
        ("", (), "is empty; write layers"),
        ("[widths", (), "cannot be read"),
        ('[widths]\nb = "half"', (), "b = 'half' is not a width"),
        ("[widths]\nlayer3.0 = 0.5", (), "names with dots stand in quotes"),
        ("[drop]\nb = 3", (), "b = 3 is not a list of channels"),
        ("[drop]\nb = [true]", (), "is not a list of channels"),
        ("[widths]\nnosuch = 3", (), "nosuch"),
        ("[widths]\nb = 3", ("--macs", "50%"), "cannot be given as well"),
    ],
)
def test_mistakes_are_one_message(tmp_path: Path, text: str, options: tuple[str, ...], message: str) -> None:
    code, out, err = run(tmp_path, text, *options)
    assert (code, out) == (2, "")
    assert message in err and "Traceback" not in err
    assert not (tmp_path / "out.onnx").exists()


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert by_hand(None) == ByHand(None, None)
    with pytest.raises(InputError, match="cannot be read"):
        by_hand(tmp_path / "none.toml")
