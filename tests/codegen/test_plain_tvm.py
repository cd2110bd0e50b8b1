"""The Python example: a library runs in TVM alone, and gives what secateur gets from it, to the bit."""

from __future__ import annotations

import runpy
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from support.network import Net

pytest.importorskip("tvm", reason="code generation needs apache-tvm")
EXAMPLE = Path(__file__).parents[2] / "examples" / "python" / "run.py"


def test_tvm_alone_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur import codegen

    net = Net(1, 3, 6, 6)
    built = codegen.build(net.graph(net.relu(net.conv("x", 10))))
    path, x = tmp_path / "a lib.so", np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)
    built.save(path)
    np.save(tmp_path / "x.npy", x)
    arguments = [str(EXAMPLE), str(path), str(tmp_path / "x.npy"), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "secateur"}
    for name in kept:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it raises
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert np.array_equal(np.load(tmp_path / "output0.npy"), built(x))

    other = tmp_path / "other.so"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            changed.writestr(name, content.replace(b'"features": [', b'"features": ["xyz",'))
    sys.argv[1] = str(other)
    with pytest.raises(SystemExit, match=r"this machine lacks xyz$"):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
