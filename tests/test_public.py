"""The public face: what `secateur` exports is there, says what it does, and is enough for a script."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

import secateur
import secateur.codegen
import secateur.ir
import secateur.passes
from support.nets import chain

SOURCE = Path(secateur.__file__).parent
STAGES = (secateur, secateur.ir, secateur.passes, secateur.codegen)


def public() -> list[tuple[str, object]]:
    """What the package and its stages export, functions and classes, and the methods that a class has of its own."""
    found: list[tuple[str, object]] = []
    for stage in STAGES:
        for name in stage.__all__:
            value = getattr(stage, name)
            if not (inspect.isfunction(value) or inspect.isclass(value)):
                continue
            found.append((f"{stage.__name__}.{name}", value))
            members = vars(value).items() if inspect.isclass(value) else ()
            found += [
                (f"{stage.__name__}.{name}.{member}", of)
                for member, of in members
                if not member.startswith("_")
                and (inspect.isfunction(of) or isinstance(of, property | staticmethod | classmethod))
            ]
    return found


def test_every_public_name_says_what_it_does() -> None:
    silent = [name for name, value in public() if not inspect.getdoc(value)]
    made_up = [name for name, value in public() if (inspect.getdoc(value) or "").startswith(f"{name.split('.')[-1]}(")]
    assert (silent, made_up) == ([], [])  # the second is what a dataclass writes of itself


def test_every_module_function_and_class_says_what_it_does() -> None:
    silent = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
        place = path.relative_to(SOURCE).as_posix()
        silent += [f"{place}: {node.name}" for node in named if not ast.get_docstring(node)]
        silent += [place] if tree.body and not ast.get_docstring(tree) else []
    assert silent == []


def test_what_can_raise_is_said() -> None:
    for name in ("apply", "build", "compile", "finetune", "inspect", "load", "load_library", "rewrite", "save_onnx",
                 "scores", "trace", "tune", "verify"):  # fmt: skip
        assert "Raises InputError" in (inspect.getdoc(getattr(secateur, name)) or "").replace("\n", " "), name


def test_the_package_lists_what_it_has() -> None:
    assert set(secateur.__all__) <= set(dir(secateur))
    assert len(set(secateur.__all__)) == len(secateur.__all__)
    assert secateur.Library is secateur.codegen.Library
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        secateur.nosuch  # noqa: B018


def test_a_graph_can_be_run_and_saved(tmp_path: Path) -> None:
    graph, x = chain(), np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    secateur.save_onnx(graph, tmp_path / "net.onnx")
    (wanted,) = secateur.evaluate(graph, {"x": x})
    (found,) = secateur.evaluate(secateur.load(tmp_path / "net.onnx"), {"x": x})
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_graph_can_be_built(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    graph, x = chain(), np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    library = secateur.build(graph, "x86-avx2")
    assert isinstance(library, secateur.Library)
    library.save(tmp_path / "net.so")
    (wanted,) = secateur.evaluate(graph, {"x": x})
    np.testing.assert_allclose(secateur.load_library(tmp_path / "net.so")(x), wanted, rtol=1e-3, atol=1e-4)
