"""What code is generated for: the vector width, the registers and the cores of a processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from secateur.ir import InputError
from secateur.ir.near import did_you_mean

from .devices import cuda, opencl
from .dots import DOTS
from .host import arm_cores, cpu_features, machine, system
from .runtime import cores


@dataclass(frozen=True)
class Target:
    """A processor as the templates see it.

    ``lanes`` is the width of a vector in float32, ``registers`` how many vectors the register file holds.
    ``features`` are what the machine must have to run the code, in the names of /proc/cpuinfo.
    Of one core: ``l1`` and ``l2`` are bytes of its caches, ``fmas`` the fused multiply-adds of vectors that begin in a
    cycle and ``latency`` the cycles until a sum can be added to again; ``load`` is how many multiply-accumulates at the
    peak take as long as one float32 from memory, ``ahead`` how many pixels early the next ones are asked for (0: the
    processor does so itself). ``by_lane``: a multiplication takes one factor from any lane of a vector.
    ``sharing``: multiply-accumulates that sharing a kernel among threads costs.
    ``like``: the target whose kernels in float32 are the same, and whose records hold for them, empty for its own.
    ``bf16``: the operation that multiplies bfloat16 (``dots.DOTS``), empty where there is none, and ``bf16_rate`` how
    many multiply-accumulates in it take as long as one in float32, both at their peak.
    ``permute``: what takes lanes of vectors by numbers in a vector (``emit/permute.py``), empty where there is nothing,
    and ``permute_cycles`` what one vector takes.
    Of a GPU, whose values lie in planes (``lanes`` 1): ``warp`` work items run in step (0: a processor), ``group`` is
    the most that share a group, ``shared`` the bytes of shared memory that a group has, ``registers`` those of a work
    item, ``cores`` the multiprocessors, to all of whose peak ``load`` refers; ``sharing`` is what launching a kernel
    takes, in multiply-accumulates of one of them. ``tensor_cores``: a warp multiplies matrices in TF32 and FP16.
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
    by_lane: bool = False
    sharing: int = 16 << 10
    like: str = ""
    bf16: str = ""
    bf16_rate: float = 1.0
    permute: str = ""
    permute_cycles: float = 1.0
    warp: int = 0
    group: int = 0
    shared: int = 0
    tensor_cores: bool = False

    @property
    def gpu(self) -> bool:
        """Is it a GPU?"""
        return self.warp > 0

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


PRECISIONS = ("f32", "bf16", "tf32", "f16", "auto")
TENSOR_CORES = ("tf32", "f16")  # precisions of theirs
_X86, _ARM, _MAC = "x86_64-linux-gnu", "aarch64-linux-gnu", "aarch64-apple-darwin"
_V82 = ("asimd", "asimddp", "asimdrdm", "atomics", "fphp", "lrcpc")  # what LLVM may use on a core of ARMv8.2


# Runs on any 64-bit ARM: code for the Cortex-A72, the last of ARMv8.0, with caches of today.
_NEON = Target(
    "aarch64-neon", _ARM, "cortex-a72", 4, 32, 1, ("asimd",), l1=64 << 10, load=9.0, ahead=0, by_lane=True
)  # fmt: skip


def _arm(core: str, features: tuple[str, ...], l1: int, l2: int, fmas: int, latency: int, load: float) -> Target:
    """A core with NEON. ``l1`` and ``l2`` are KiB."""
    return replace(
        _NEON, name=f"aarch64:{core}", mcpu=core, features=features, l1=l1 << 10, l2=l2 << 10, fmas=fmas,
        latency=latency, load=load,
    )  # fmt: skip


# Of ARM cores: multiplications a cycle and latencies from ARM's optimization guides and LLVM's models, caches of the
# machines named. No such machine was at hand: ``load`` is peak over bandwidth as their makers state them.
_ROWS = (
    Target("x86-avx512", _X86, "skylake-avx512", 16, 32, 1, ("avx512f", "avx512vl", "avx512dq", "fma"), l1=48 << 10,
           l2=1 << 20, permute="avx512"),
    Target("x86-avx2", _X86, "haswell", 8, 16, 1, ("avx2", "fma"), l1=32 << 10, l2=512 << 10, latency=5, load=10.0,
           permute="avx2", permute_cycles=2.0),
    _NEON,
    replace(_arm("neoverse-v1", (*_V82, "sve"), 64, 1024, 4, 4, 6.7), bf16="bfmmla", bf16_rate=4.0),  # Graviton3
    _arm("neoverse-n1", _V82, 64, 1024, 2, 4, 5.3),  # Graviton2, Ampere Altra
    _arm("cortex-a78", _V82, 64, 256, 2, 4, 6.0),  # Jetson Orin
    _arm("cortex-a76", _V82, 64, 512, 2, 4, 7.7),  # Raspberry Pi 5
    _arm("cortex-a72", ("asimd",), 32, 1024, 1, 3, 7.0),  # Raspberry Pi 4
    _arm("cortex-a55", _V82, 32, 128, 1, 4, 7.0),
    _arm("cortex-a53", ("asimd",), 32, 512, 1, 8, 11.0),  # Raspberry Pi 3
    replace(_arm("apple-m1", _V82, 128, 3072, 4, 4, 3.7), triple=_MAC),
    # A product does the work of two multiply-adds, and takes as long by LLVM's model of Sapphire Rapids.
    Target("x86-avx512-bf16", _X86, "cooperlake", 16, 32, 1,
           ("avx512f", "avx512vl", "avx512dq", "avx512_bf16", "fma"), l1=48 << 10, l2=1 << 20, like="x86-avx512",
           bf16="dpbf16ps", permute="avx512"),
)  # fmt: skip
TARGETS: Mapping[str, Target] = MappingProxyType({target.name: target for target in _ROWS})


def _gpu(name: str, triple: str, arch: str, cores: int, group: int, shared: int, load: float, rate: int) -> Target:
    """``shared`` in KiB, as much as a kernel gets that does not ask for more; ``rate``: 1e9 multiply-adds a second.

    The rate of one multiprocessor: a launch takes about a microsecond, which nobody measured.
    """
    return Target(name, triple, arch, 1, 255, cores, load=load, warp=32, group=group, shared=shared << 10,
                  sharing=1000 * rate, tensor_cores=arch >= "sm_80")  # fmt: skip


# Of CUDA's architectures the board with the most multiprocessors that is common: T4, A100, Jetson Orin, H200. OpenCL
# runs on anything: 256 work items a group and 32 KiB are what GPUs of telephones have too (Adreno, Mali).
_GPUS = (
    _gpu("opencl", "opencl", "", 16, 256, 32, 50.0, 100),
    _gpu("cuda:sm_75", "cuda", "sm_75", 40, 1024, 48, 51.0, 101),
    _gpu("cuda:sm_80", "cuda", "sm_80", 108, 1024, 48, 25.0, 90),
    _gpu("cuda:sm_87", "cuda", "sm_87", 16, 1024, 48, 52.0, 166),
    _gpu("cuda:sm_90", "cuda", "sm_90", 132, 1024, 48, 28.0, 254),
)
GPUS: Mapping[str, Target] = MappingProxyType({target.name: target for target in _GPUS})

# The core of a target by implementer and part number; cores that differ little from it stand next to it.
ARM_CORES: Mapping[tuple[int, int], str] = MappingProxyType(
    {
        (0x41, part): f"aarch64:{core}"
        for core, parts in {
            "neoverse-v1": (0xD40,), "neoverse-n1": (0xD0C,), "cortex-a78": (0xD41, 0xD42, 0xD4B, 0xD0D),
            "cortex-a76": (0xD0B, 0xD0A), "cortex-a72": (0xD08, 0xD07, 0xD09), "cortex-a55": (0xD05,),
            "cortex-a53": (0xD03,),
        }.items()
        for part in parts
    }
)  # fmt: skip


def native() -> Target:
    """The best target whose features this machine has. LLVM's name of the host is not trusted, only features are.

    On ARM it is that of the fastest core which the system names, or Apple's; ``aarch64-neon`` for cores without a row.
    """
    fitting = [target for target in TARGETS.values() if not missing_features(target)]
    if not fitting:
        raise InputError(
            f"no target fits this machine ({machine()}, {system()}): the templates need one of {', '.join(TARGETS)}; "
            "name a target to build for another machine"
        )
    named = {ARM_CORES.get(core) for core in arm_cores()}
    best = next((target for target in fitting if target.name in named), fitting[0])
    return replace(best, cores=len(cores()))


def get_target(target: str | Target) -> Target:
    """A target by name, ``native`` included. Raises InputError with the names there are."""
    if isinstance(target, Target):
        return target
    if target == "native":
        return native()
    known = {**TARGETS, **GPUS}
    if target not in known:
        near = did_you_mean(str(target), known)
        raise InputError(f"unknown target '{target}'{near}: choose native or one of {', '.join(known)}")
    return known[target]


def target_for(target: str | Target, precision: str) -> Target:
    """A target that computes in ``precision``: with "bf16" what it must have includes the instructions for it.

    ``native`` is then the best target with bfloat16 whose features this machine has; with "auto" it may be one without.
    Raises InputError for an unknown precision, and where "bf16" is asked of a target that has none.
    """
    if precision not in PRECISIONS:
        near = did_you_mean(precision, PRECISIONS)
        raise InputError(f"unknown precision '{precision}'{near}: choose one of {', '.join(PRECISIONS)}")
    chosen = get_target(target)
    if precision == "f32" or (precision in TENSOR_CORES and chosen.tensor_cores):
        return chosen
    if precision in TENSOR_CORES:
        able_gpus = ", ".join(t.name for t in GPUS.values() if t.tensor_cores)
        raise InputError(
            f"precision {precision}: target {chosen.name} has no tensor cores that multiply in it; build with "
            f"precision f32, or for one of {able_gpus}"
        )
    able = [chosen] if target != "native" else [chosen, *TARGETS.values()]
    for one in able:
        full = _needing_bf16(one)
        if one.bf16 and (target != "native" or not missing_features(full)):
            return replace(full, cores=chosen.cores)
    if precision == "auto":
        return chosen
    rows = [_needing_bf16(t) for t in TARGETS.values() if t.bf16]
    what = " or ".join(f"{DOTS[t.bf16].feature} ({t.name})" for t in rows)
    where = "this machine" if target == "native" else f"target {chosen.name}"
    raise InputError(
        f"precision bf16: {where} has no instructions that multiply bfloat16, which take {what}, and without them it "
        "is slower than f32; build with precision f32, with auto, which takes bf16 only where it is faster, or name "
        "one of these targets to build for another machine"
    )


def _needing_bf16(target: Target) -> Target:
    """With the feature that its products take among those that it must have."""
    needed = DOTS[target.bf16].feature if target.bf16 else ""
    return replace(target, features=tuple(dict.fromkeys((*target.features, needed)))) if needed else target


def at_home(target: Target) -> bool:
    """Has this machine the architecture and the system of a target?"""
    return target.triple.startswith(machine()) and target_system(target) == system()


def target_system(target: Target) -> str:
    """The operating system of a target, in the words of ``host.system``."""
    return "darwin" if "-darwin" in target.triple else "linux"


def missing_features(target: Target) -> list[str]:
    """What this machine lacks to run code for ``target``: another architecture or system alone, else features.

    For a GPU: the driver, or a device that fits.
    """
    if target.gpu:
        return cuda.missing(target.mcpu) if target.triple == "cuda" else opencl.missing()
    if not at_home(target):
        architecture = target.triple.partition("-")[0]
        return [f"an {architecture} processor under {'macOS' if target_system(target) == 'darwin' else 'Linux'}"]
    return sorted(set(target.features) - cpu_features())
