"""Spoken prompts of a telephone exchange and the music that it plays, kept with the material.

    python -m bench.data.prompts        fetch what is not there yet (110 MB), print what there is

Debian's packages asterisk-core-sounds-*-wav (1.6.1: English and Spanish by Allison Smith, French by June Wallack,
Italian by Carlo Flora, Russian by IvrvoiceRU, some 560 prompts each; CC-BY-SA-3.0 and the like) and
asterisk-moh-opsound-wav (2.03: five pieces of music; CC-BY-SA-3.0), downloaded by apt-get without installing them. All
are recordings at 8 kHz and 16 bits, one channel; they are read at 16 kHz, so there is nothing above 4 kHz in them.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bench.data.material import ROOT, MaterialError
from secateur.ir import Array

RATE = 16000
PACKAGES = MappingProxyType({
    "asterisk-core-sounds-en-wav": "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
    "asterisk-core-sounds-es-wav": "9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903",
    "asterisk-core-sounds-fr-wav": "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e",
    "asterisk-core-sounds-it-wav": "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb",
    "asterisk-core-sounds-ru-wav": "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201",
    "asterisk-moh-opsound-wav": "8f9d808a729d305c2d3343993f21ca5e6829e411682618dc8ea7aa8bc24a566c",
})  # fmt: skip
VOICES = MappingProxyType({
    "en_US_f_Allison": "Allison", "es_MX_f_Allison": "Allison", "fr_CA_f_June": "June", "it_IT_m_Carlo": "Carlo",
    "ru_RU_f_IvrvoiceRU": "IvrvoiceRU",
})  # fmt: skip


def folder(root: Path = ROOT) -> Path:
    """The folder with `sounds` and `moh`, fetched and checked if it is not there. Raises MaterialError."""
    target = root / "prompts"
    if target.exists():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        scratch = Path(name)
        for package, digest in PACKAGES.items():
            _run(["apt-get", "download", package], scratch)
            (archive,) = scratch.glob(f"{package}_*.deb")
            if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
                raise MaterialError(f"{package}: '{archive.name}' is not the file it was (its SHA-256 is pinned)")
            _run(["dpkg", "-x", archive.name, "out"], scratch)
        shutil.move(scratch / "out/usr/share/asterisk", target)
    return target


def _run(command: list[str], where: Path) -> None:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MaterialError(f"'{' '.join(command)}' failed: {done.stderr.strip()[-300:]}")


def read(path: Path) -> Array:
    """The samples of a file, f32[samples] at 16 kHz between -1 and 1."""
    from scipy.signal import resample_poly

    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE // 2):
            raise MaterialError(f"'{path.name}' is not one channel of 16 bits at 8 kHz")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    found: Array = resample_poly(samples, 2, 1).astype(np.float32)
    return found


def seconds(path: Path) -> float:
    """How long a file lasts."""
    with wave.open(str(path)) as file:
        frames, rate = int(file.getnframes()), int(file.getframerate())
    return frames / rate


def prompts(voice: str, least: float, most: float) -> list[Path]:
    """The prompts of one of ``VOICES``' sets that last so many seconds, by name; silences and tones are left out."""
    files = sorted((folder() / "sounds" / voice).rglob("*.wav"))
    speech = [f for f in files if "silence" not in f.parts and not any(t in f.stem for t in ("beep", "tone", "ring"))]
    return [f for f in speech if least <= seconds(f) <= most]


def music() -> list[Path]:
    """The pieces of music, by name."""
    return sorted((folder() / "moh").glob("*.wav"))


def main() -> int:
    """Fetch, and list."""
    for voice, speaker in VOICES.items():
        files = prompts(voice, 0, 1e9)
        print(f"{voice}: {len(files)} prompts of {speaker}, {sum(map(seconds, files)) / 60:.0f} minutes")
    print(*(f"{f.stem}: {seconds(f):.0f} s" for f in music()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
