"""The shape of the project: light imports, the layers, the links at the top level, scripts that explain themselves."""

from __future__ import annotations

import ast
import graphlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "onnx", "onnxruntime", "onnx_graphsurgeon", "tvm")


@pytest.mark.parametrize("module", ["secateur", "secateur.ir", "secateur.passes", "secateur.codegen"])
def test_import_loads_no_framework(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    env = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("stage", ["ir", "passes", "codegen"])
def test_top_level_links_to_the_stages(stage: str) -> None:
    link = ROOT / stage
    assert link.is_symlink(), f"{stage} is not a link: check it out with core.symlinks, or restore it"
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / "src" / "secateur" / stage


def test_layers_hold() -> None:
    command = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"]
    env = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_belongs_to_a_layer() -> None:
    """A front-door module that the contract does not name could import and be imported freely."""
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {part.strip(" ()") for layer in layers for part in layer.replace("|", ":").split(":")}
    modules = {f"secateur.{p.stem}" for p in (ROOT / "src/secateur").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert modules - {"secateur.__init__", "secateur.__main__", "secateur.__pycache__"} <= named


# Imports inside functions that would close a circle, with the reason.
KNOWN_CIRCLES = {
    ("secateur.ir.graph", "secateur.ir.text"): "a graph prints itself",
    ("secateur.passes.recipe.recipe", "secateur.passes.recipe.schema"): "a recipe reads its own file",
}


def test_no_imports_run_in_a_circle() -> None:
    """Neither at the top of modules nor in functions; what is for type checkers alone does not count."""
    edges = imports(ROOT / "src")
    for one, other in KNOWN_CIRCLES:
        edges[one].remove(other)
    with pytest.raises(graphlib.CycleError, match="'a', 'b', 'a'"):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
    graphlib.TopologicalSorter(edges).prepare()


def imports(root: Path) -> dict[str, set[str]]:
    """By module of the package: the modules of it that it imports, wherever that stands."""
    files = {
        ".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in root.rglob("*.py")
    }
    return {name: set(_imported(ast.parse(p.read_text(encoding="utf-8")), name, p, files)) for name, p in files.items()}


def _imported(tree: ast.AST, name: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            up = node.level - (path.name == "__init__.py")
            base = name.split(".")[: -up or None] if node.level else []
            home = ".".join([*base, *filter(None, [node.module])])
            found = (f"{home}.{alias.name}" if f"{home}.{alias.name}" in files else home for alias in node.names)
            yield from (each for each in found if each in files and each != name)
        yield from _imported(node, name, path, files)


SCRIPTS = sorted(p for p in (ROOT / "bench").rglob("*.py") if ".material" not in p.parts)  # not what is fetched


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_bench_script_says_what_it_answers(script: Path) -> None:
    assert ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))


def test_the_wheel_holds_what_the_source_tree_holds(tmp_path: Path) -> None:
    """The marker for type checkers and the shipped records too; built from a copy, without a network."""
    pytest.importorskip("setuptools", minversion="77")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    package = tmp_path / "src" / "secateur"
    shutil.copytree(ROOT / "src" / "secateur", package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "out", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "out").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("secateur/")}
    assert packed == {p.relative_to(package.parent).as_posix() for p in package.rglob("*") if p.is_file()}
    assert {f"secateur/codegen/shipped/x86-{name}.jsonl" for name in ("avx512", "avx2")} <= set(packed)


def test_zoo_lists_each_network_once() -> None:
    lines = (ROOT / "bench" / "data" / "zoo.csv").read_text(encoding="utf-8").splitlines()[1:]
    names = [tuple(line.split(",")[:2]) for line in lines]
    assert len(names) == len(set(names)) == 233


def test_stages_are_reached_through_the_package() -> None:
    code = "import secateur as s; print(s.ir.Graph.__name__, 'l1' in s.passes.CRITERIA, bool(s.codegen.TARGETS))"
    env = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "Graph True True"), done.stderr


def test_the_face_of_the_project_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
