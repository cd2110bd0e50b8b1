"""What code is generated for: the vector width, the registers and the cores of a processor."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from secateur.ir import InputError
from secateur.ir.near import did_you_mean

from .runtime import cores


@dataclass(frozen=True)
class Target:
    """A processor as the templates see it.

    ``lanes`` is the width of a vector in float32, ``registers`` how many vectors the register file holds.
    ``features`` are what the machine must have to run the code, in the names of /proc/cpuinfo.
    Of one core: ``l1`` and ``l2`` are bytes of its caches, ``fmas`` the fused multiply-adds of vectors that begin in a
    cycle and ``latency`` the cycles until a sum can be added to again; ``load`` is how many multiply-accumulates at the
    peak take as long as one float32 from memory, ``ahead`` how many pixels early the next ones are asked for.
    ``sharing``: multiply-accumulates that sharing a kernel among threads costs.
    """

    name: str
    triple: str
    mcpu: str
    lanes: int
    registers: int
    cores: int
    features: tuple[str, ...] = ()
    l1: int = 32 << 10
    l2: int = 512 << 10
    fmas: int = 2
    latency: int = 4
    load: float = 12.5
    ahead: int = 32
    sharing: int = 16 << 10

    def to_json(self) -> dict[str, Any]:
        """The fields, as a library's metadata and a record hold them."""
        return {**asdict(self), "features": list(self.features)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Target:
        """The inverse of ``to_json``. Raises KeyError or TypeError where it is something else."""
        target = Target(**{**data, "features": tuple(data["features"])})
        numbers, texts = (target.lanes, target.registers, target.cores), (target.name, target.triple, target.mcpu)
        if {*map(type, numbers)} != {int} or {*map(type, (*texts, *target.features))} != {str}:
            raise TypeError("its target is not one")
        return target


_X86 = "x86_64-linux-gnu"
TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "x86-avx512": Target(
            "x86-avx512",
            _X86,
            "skylake-avx512",
            16,
            32,
            1,
            ("avx512f", "avx512vl", "avx512dq", "fma"),
            l1=48 << 10,
            l2=1 << 20,
        ),
        "x86-avx2": Target(
            "x86-avx2", _X86, "haswell", 8, 16, 1, ("avx2", "fma"), l1=32 << 10, l2=512 << 10, latency=5, load=10.0
        ),
        "aarch64-neon": Target(
            "aarch64-neon", "aarch64-linux-gnu", "cortex-a76", 4, 32, 1, ("asimd",), l1=64 << 10, l2=512 << 10, load=9.0
        ),
    }
)


def cpu_features() -> frozenset[str]:
    """The features this machine's kernel reports; empty where there is no /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def machine() -> str:
    """The architecture of this machine, as triples begin."""
    return platform.machine().lower().replace("arm64", "aarch64").replace("amd64", "x86_64")


def native() -> Target:
    """The best target whose features this machine has. LLVM's name of the host is not trusted, only features are."""
    found = cpu_features()
    for target in TARGETS.values():
        if target.triple.startswith(machine()) and found.issuperset(target.features):
            return replace(target, cores=len(cores()))
    raise InputError(
        f"no target fits this machine ({machine()}): the templates need one of {', '.join(TARGETS)}; "
        "name a target to build for another machine"
    )


def get_target(target: str | Target) -> Target:
    """A target by name, ``native`` included. Raises InputError with the names there are."""
    if isinstance(target, Target):
        return target
    if target == "native":
        return native()
    if target not in TARGETS:
        near = did_you_mean(str(target), TARGETS)
        raise InputError(f"unknown target '{target}'{near}: choose native or one of {', '.join(TARGETS)}")
    return TARGETS[target]


def missing_features(target: Target) -> list[str]:
    """What this machine lacks to run code for ``target``."""
    return sorted(set(target.features) - cpu_features())
