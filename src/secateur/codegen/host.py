"""The machine that this process runs on: architecture, system, features and ARM cores, as the system reports them."""

from __future__ import annotations

import ctypes
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

# The names of /proc/cpuinfo for the bits of AT_HWCAP on arm64 Linux (arch/arm64/include/uapi/asm/hwcap.h), from bit 0.
HWCAP = (
    "fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid",
    "asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4", "asimddp", "sha512", "sve",
)  # fmt: skip
HWCAP2 = {14: "bf16"}  # of AT_HWCAP2
AT_HWCAP, AT_HWCAP2 = 16, 26
# What Apple's sysctl calls them, after "hw.optional.arm.FEAT_".
APPLE = {
    "LSE": "atomics", "FP16": "fphp", "RDM": "asimdrdm", "LRCPC": "lrcpc", "DotProd": "asimddp", "CRC32": "crc32",
    "BF16": "bf16",
}  # fmt: skip


def machine() -> str:
    """The architecture of this machine, as triples begin."""
    return platform.machine().lower().replace("arm64", "aarch64").replace("amd64", "x86_64")


def system() -> str:
    """The operating system: ``linux``, ``darwin`` (macOS), ``windows``."""
    return platform.system().lower()


def cpu_features() -> frozenset[str]:
    """The features this machine has, in the names of /proc/cpuinfo; empty where the system does not say.

    On arm64 Linux the kernel is asked, not /proc/cpuinfo, in which an emulated process reads of the host's processor.
    """
    if machine() != "aarch64":
        return frozenset(_listed("flags"))
    if system() == "darwin":
        return frozenset({"fp", "asimd", *(name for feature, name in APPLE.items() if _sysctl(feature))})
    first, second = _hwcap(AT_HWCAP), _hwcap(AT_HWCAP2)
    return frozenset(
        name for bits, names in ((first, dict(enumerate(HWCAP))), (second, HWCAP2)) for bit, name in names.items()
        if bits >> bit & 1
    )  # fmt: skip


def arm_cores() -> frozenset[tuple[int, int]]:
    """Implementer and part number of each kind of core of an arm64 Linux; empty elsewhere."""
    if machine() != "aarch64":
        return frozenset()
    implementers, parts = (map(_number, _each(key)) for key in ("CPU implementer", "CPU part"))
    return frozenset(zip(implementers, parts, strict=False))


@cache
def family() -> str:
    """The generation of this machine's processor, as ``family_in`` writes it; empty where the system does not say."""
    if system() == "darwin":
        return _asked("machdep.cpu.brand_string")
    return family_in(_cpuinfo())


def family_in(cpuinfo: str) -> str:
    """Maker, family and model of an x86 processor (``AuthenticAMD 25/17``), implementer and part of each kind of ARM
    core (``arm 0x41/0xd0b``), from the text of /proc/cpuinfo; empty where it says neither.
    """
    maker, number, model = (next(iter(_each(key, cpuinfo)), "").strip() for key in ("vendor_id", "cpu family", "model"))
    if maker:
        return f"{maker} {number}/{model}"
    parts = zip(_each("CPU implementer", cpuinfo), _each("CPU part", cpuinfo), strict=False)
    kinds = sorted({f"{implementer.strip()}/{part.strip()}" for implementer, part in parts})
    return f"arm {'+'.join(kinds)}" if kinds else ""


def features_in(cpuinfo: str) -> frozenset[str]:
    """The features that the text of /proc/cpuinfo names."""
    return frozenset(word for key in ("flags", "Features") for line in _each(key, cpuinfo)[:1] for word in line.split())


def _listed(key: str) -> list[str]:
    """The words of the first line of /proc/cpuinfo under a key."""
    return next(iter(_each(key)), "").split()


def _each(key: str, text: str | None = None) -> list[str]:
    return re.findall(rf"^{key}\s*:(.*)$", _cpuinfo() if text is None else text, re.MULTILINE)


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(text: str) -> int:
    return int(text.strip(), 0)


def _hwcap(which: int) -> int:
    """The kernel's bits for this process under AT_HWCAP or AT_HWCAP2; 0 where the C library cannot say."""
    try:
        ask = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError, TypeError):
        return 0
    ask.restype, ask.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return int(ask(which))


def _sysctl(feature: str) -> bool:
    """Does an Apple processor say that it has a feature?"""
    return _asked(f"hw.optional.arm.FEAT_{feature}") == "1"


def _asked(name: str) -> str:
    """What sysctl says of a name; nothing where it knows none."""
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
