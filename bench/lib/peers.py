"""Packages for measuring only, each in a folder of its own outside of the repository, without what they depend on.

    python -m bench.lib.peers           fetch what is missing

pip would bring another torch along; what is left out here is there already, or is not needed to make a network.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.lib import common

ULTRALYTICS = (
    "ultralytics==8.4.190", "ultralytics-thop==2.2.3", "opencv-python-headless==5.0.0.93", "requests==2.34.2",
    "pyyaml==6.0.4", "charset-normalizer==3.5.3", "idna==3.20", "urllib3==2.8.0", "certifi==2026.10.19.post1",
)  # fmt: skip


class PeerError(Exception):
    """A peer is not there and cannot be had."""


def ultralytics(root: Path = common.MATERIAL) -> Path:
    """Its folder, fetched if it is not there, and on the path of this process. Raises PeerError."""
    folder = root / "ultralytics"
    if not (folder / "ultralytics").is_dir():
        install(ULTRALYTICS, folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return folder


def install(requirements: tuple[str, ...], folder: Path) -> None:
    """Put packages into a folder, whole or not at all. Raises PeerError."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise PeerError(f"{', '.join(requirements)} could not be installed into {folder}: {last}; check the network")


if __name__ == "__main__":
    print(ultralytics())
