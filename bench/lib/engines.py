"""Environments of peers that are not pinned next to the project: one each, outside of the repository.

    python -m bench.lib.engines                    make all engines that are missing, say what failed
    python -m bench.lib.engines pruners            the pruners of torch modules, to be used with the project's own torch
    python -m bench.lib.engines ncnn mnn           some of them
    python -m bench.lib.engines --folder ~/engines

Their pins clash with each other and with the project's, and some would have pip choose another torch: what would is
installed without its dependencies, and those it needs to run are listed. An environment that is there with these very
packages is left as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.lib import common

FOLDER = Path.home() / ".cache" / "secateur" / "engines"
STAMP = "secateur-engine.json"
# Their processes see this repository's bench/ and nothing else of it. DeepSparse reports use unless told.
ENVIRONMENT = {"NM_DISABLE_ANALYTICS": "1", "PYTHONPATH": str(common.ROOT)}

PRUNERS = ("torch-pruning==1.6.1", "torch-kirigami==0.2.1")  # pure Python: a folder for the import path will do


class Unprepared(Exception):
    """An environment could not be made: why."""


@dataclass(frozen=True)
class Engine:
    """What an engine needs: its packages with versions, and others by name; ``alone``: without their dependencies.

    ``also`` names what runs in its environment besides the runtime of its name.
    """

    name: str
    packages: tuple[str, ...]
    python: str = "3.11"
    alone: bool = True
    also: tuple[str, ...] = ()

    def folder(self, root: Path) -> Path:
        """Where its environment lies."""
        return root / self.name

    def interpreter(self, root: Path) -> Path:
        """Its Python."""
        return self.folder(root) / "bin" / "python"


ENGINES = (
    Engine(
        "openvino", ("openvino==2026.4.1", "openvino-telemetry==2025.2.0", "numpy==2.4.6"), also=("openvino-default",)
    ),
    # pnnx asks for torch, which its program does not use.
    Engine("ncnn", ("ncnn==1.0.20261020", "pnnx==20261020", "numpy==2.4.6")),
    Engine("mnn", ("MNN==3.6.1", "numpy==2.4.6")),
    # onnx2tf 2 needs Python 3.12 and neither TensorFlow nor torch.
    Engine("litert", ("onnx2tf==2.6.9",), python="3.12", alone=False),
    # It reads programs of the project's torch, so it is given the same one.
    Engine("executorch", ("executorch==1.5.1", "torch==2.13.0"), alone=False),
    Engine("opencv", ("opencv-python-headless==5.0.0.93", "numpy==2.4.6")),
    # Of the time of NumPy 1.
    Engine("deepsparse", ("deepsparse==1.8.0", "numpy==1.26.4", "protobuf==3.20.3"), alone=False),
)


def prepare(engine: Engine, root: Path = FOLDER) -> Path:
    """The interpreter of the engine's environment, made where it is missing. Raises Unprepared."""
    folder = engine.folder(root)
    if ready(engine, root):
        return engine.interpreter(root)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _call([python(engine.python), "-m", "venv", str(folder)])
    pip = [str(engine.interpreter(root)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _call([*pip, *(["--no-deps"] if engine.alone else []), *engine.packages])
    (folder / STAMP).write_text(stamp(engine), encoding="utf-8")
    return engine.interpreter(root)


def ready(engine: Engine, root: Path = FOLDER) -> bool:
    """Is its environment there, with these very packages?"""
    written = engine.folder(root) / STAMP
    return written.exists() and written.read_text(encoding="utf-8") == stamp(engine)


def stamp(engine: Engine) -> str:
    """What is written into an environment that is ready."""
    return json.dumps({k: v for k, v in dataclasses.asdict(engine).items() if k != "also"})


def python(version: str) -> str:
    """An interpreter of this version: this one, one on the PATH, or one of pyenv's. Raises Unprepared."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    for found in (shutil.which(f"python{version}"), *map(str, pyenv)):
        if found is not None and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
            return found
    raise Unprepared(f"there is no Python {version} on this machine")


def prepare_pruners(root: Path = FOLDER) -> Path:
    """The folder with the pruners, installed without what they depend on: torch is the project's. Raises Unprepared."""
    folder = root / "pruners"
    stamp = folder / STAMP
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != json.dumps(PRUNERS):
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        _call([*pip, "--target", str(folder), *PRUNERS])
        stamp.write_text(json.dumps(PRUNERS), encoding="utf-8")
    return folder


def versions(engine: Engine, root: Path = FOLDER) -> dict[str, str]:
    """The packages of the environment that are named, as they are installed."""
    done = subprocess.run(
        [str(engine.interpreter(root)), "-m", "pip", "list", "--format", "json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = {entry["name"].lower(): str(entry["version"]) for entry in json.loads(done.stdout)}
    names = [package.partition("=")[0] for package in engine.packages]
    return {name: here[name.lower()] for name in names}


def serving(runtime: str) -> Engine | None:
    """The engine in whose environment a runtime is; None where it is one of the project's own."""
    return next((engine for engine in ENGINES if runtime in (engine.name, *engine.also)), None)


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-600:]
        raise Unprepared(f"{' '.join(command[:4])} .. ended with {done.returncode}: {said}")


def main() -> int:
    """Make the environments that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="engines (default: all)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where they lie (default {FOLDER})")
    options = parser.parse_args()
    rows = []
    if "pruners" in options.names:
        rows.append(["pruners", "ready", str(prepare_pruners(options.folder))])
    for engine in ENGINES:
        if options.names and engine.name not in options.names:
            continue
        try:
            prepare(engine, options.folder)
            rows.append(
                [engine.name, "ready", " ".join(f"{k} {v}" for k, v in versions(engine, options.folder).items())]
            )
        except Unprepared as error:
            rows.append([engine.name, "failed", str(error)])
    print(common.table(["engine", "environment", "packages"], rows))
    return int(any(row[1] != "ready" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
