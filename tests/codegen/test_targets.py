"""Targets: written and read back, found from what the processor says it has, and refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secateur.arguments import lanes_of
from secateur.codegen import host, targets
from secateur.codegen.host import arm_cores, cpu_features
from secateur.codegen.targets import ARM_CORES, GPUS, TARGETS, Target, get_target, missing_features, native
from secateur.ir import InputError

NEON = TARGETS["aarch64-neon"]
X86 = [t for t in TARGETS.values() if t.triple.startswith("x86_64")]
FEATURES = sorted({f for t in TARGETS.values() for f in t.features} | {"sse2", "amx"})
words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=9)
anything = st.builds(Target, words, words, words, *[st.integers(1, 512)] * 3, st.lists(words, max_size=4).map(tuple))
patched = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(anything)
def test_a_target_is_read_as_it_was_written(target: Target) -> None:
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target
    assert get_target(target) is target


@given(st.frozensets(st.sampled_from(FEATURES)))
@patched
def test_native_is_the_widest_that_the_processor_has(monkeypatch: pytest.MonkeyPatch, has: frozenset[str]) -> None:
    monkeypatch.setattr(targets, "cpu_features", lambda: has)
    at(monkeypatch, "x86_64", "Linux")
    fitting = [t for t in X86 if has >= set(t.features)]
    if not fitting:
        with pytest.raises(
            InputError, match=r"no target fits this machine \(x86_64, linux\).*name a target to build for"
        ):
            native()
        return
    found = native()
    assert found.lanes == max(t.lanes for t in fitting)
    assert missing_features(found) == []
    assert dataclasses.replace(found, cores=1) == TARGETS[found.name]
    assert found.cores >= 1


@given(anything, st.frozensets(words))
@patched
def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, target: Target, has: frozenset[str]) -> None:
    monkeypatch.setattr(targets, "cpu_features", lambda: has)
    monkeypatch.setattr(targets, "at_home", lambda _: True)
    missing = missing_features(target)
    assert missing == sorted(missing)
    assert set(missing) | has >= set(target.features)
    assert not set(missing) & has


def at(monkeypatch: pytest.MonkeyPatch, machine: str, system: str) -> None:
    monkeypatch.setattr(host.platform, "machine", lambda: machine)
    monkeypatch.setattr(host.platform, "system", lambda: system)


def cpuinfo(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str | None) -> None:
    place = folder / "cpuinfo"
    if text is not None:
        place.write_text(text)
    monkeypatch.setattr(host, "Path", lambda _: place)


@pytest.mark.parametrize(
    ("machine", "system", "name"),
    [("aarch64", "Linux", "aarch64-neon"), ("AMD64", "Linux", "x86-avx2"), ("arm64", "Darwin", "aarch64:apple-m1")],
)
def test_machines_by_their_names(monkeypatch: pytest.MonkeyPatch, machine: str, system: str, name: str) -> None:
    monkeypatch.setattr(targets, "cpu_features", lambda: frozenset(TARGETS[name].features))
    monkeypatch.setattr(targets, "arm_cores", frozenset)
    at(monkeypatch, machine, system)
    assert native().name == name


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ("0xd03 0xd03", "aarch64:cortex-a53"),
        ("0xd05 0xd0b", "aarch64:cortex-a76"),  # the large cores of big.LITTLE
        ("0xd42", "aarch64:cortex-a78"),
        ("0xfff", "aarch64-neon"),
    ],
)
def test_the_core_of_an_arm_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parts: str, name: str) -> None:
    at(monkeypatch, "aarch64", "Linux")
    cpuinfo(monkeypatch, tmp_path, "".join(f"CPU implementer\t: 0x41\nCPU part\t: {p}\n" for p in parts.split()))
    monkeypatch.setattr(targets, "cpu_features", lambda: frozenset(host.HWCAP))
    assert native().name == name
    assert set(ARM_CORES.values()) <= set(TARGETS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2  fma\n\nprocessor\t: 1\nflags\t\t: other\n", {"fpu", "avx2", "fma"}),
        ("nothing\n", set()),
        (None, set()),
    ],
)
def test_features_of_x86_are_read_from_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, found: set[str]
) -> None:
    cpuinfo(monkeypatch, tmp_path, text)
    at(monkeypatch, "x86_64", "Linux")
    assert cpu_features() == found


def test_features_of_arm_are_asked_of_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever /proc/cpuinfo says: in an emulated process it describes the host."""
    cpuinfo(monkeypatch, tmp_path, "flags : avx2\n")
    at(monkeypatch, "aarch64", "Linux")
    monkeypatch.setattr(host, "_hwcap", lambda which: {16: 1 << 1 | 1 << 8, 26: 1 << 14}[which])
    assert cpu_features() == {"asimd", "atomics", "bf16"}
    assert arm_cores() == set()


def test_features_of_apple_come_from_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, "arm64", "Darwin")
    monkeypatch.setattr(host, "_sysctl", lambda feature: feature in ("LSE", "DotProd"))
    assert cpu_features() == {"fp", "asimd", "atomics", "asimddp"}


@pytest.mark.parametrize(("machine", "system"), [("x86_64", "Linux"), ("arm64", "Darwin")])
def test_another_architecture_or_system_is_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, machine: str, system: str
) -> None:
    at(monkeypatch, machine, system)
    assert missing_features(NEON) == ["an aarch64 processor under Linux"]


@given(words.filter(lambda w: w not in {"native", *TARGETS}))
def test_an_unknown_name_lists_those_there_are(name: str) -> None:
    with pytest.raises(InputError, match="choose native or one of x86-avx512, x86-avx2, aarch64-neon"):
        get_target(name)


def test_names_are_keys() -> None:
    assert all(get_target(name) is target and target.name == name for name, target in TARGETS.items())


def test_gpus_are_targets_of_their_own() -> None:
    """No machine is one natively; widths are rounded to what the narrowest tile holds."""
    assert all(get_target(name) is target and target.gpu and target.lanes == 1 for name, target in GPUS.items())
    assert not set(GPUS) & set(TARGETS)
    assert not any(target.gpu for target in TARGETS.values())
    assert lanes_of("cuda:sm_90") == lanes_of("opencl") == 32
    assert lanes_of("x86-avx2") == 8
