"""Targets: written and read back, found from what the processor says it has, and refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secateur.codegen import targets
from secateur.codegen.targets import TARGETS, Target, cpu_features, get_target, missing_features, native
from secateur.ir import InputError

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
    monkeypatch.setattr(targets.platform, "machine", lambda: "x86_64")
    fitting = [t for t in X86 if has >= set(t.features)]
    if not fitting:
        with pytest.raises(InputError, match=r"no target fits this machine \(x86_64\).*name a target to build for"):
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
    missing = missing_features(target)
    assert missing == sorted(missing)
    assert set(missing) | has >= set(target.features)
    assert not set(missing) & has


@pytest.mark.parametrize(("machine", "name"), [("arm64", "aarch64-neon"), ("aarch64", "aarch64-neon"), ("AMD64", "x86-avx2")])  # fmt: skip  # noqa: E501
def test_machines_by_their_names(monkeypatch: pytest.MonkeyPatch, machine: str, name: str) -> None:
    monkeypatch.setattr(targets, "cpu_features", lambda: frozenset(TARGETS[name].features))
    monkeypatch.setattr(targets.platform, "machine", lambda: machine)
    assert native().name == name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2  fma\n\nprocessor\t: 1\nflags\t\t: other\n", {"fpu", "avx2", "fma"}),
        ("processor : 0\nFeatures : fp asimd\n", {"fp", "asimd"}),
        ("nothing\n", set()),
        (None, set()),
    ],
)
def test_features_are_read_from_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, found: set[str]
) -> None:
    place = tmp_path / "cpuinfo"
    if text is not None:
        place.write_text(text)
    monkeypatch.setattr(targets, "Path", lambda _: place)
    assert cpu_features() == found


@given(words.filter(lambda w: w not in {"native", *TARGETS}))
def test_an_unknown_name_lists_those_there_are(name: str) -> None:
    with pytest.raises(InputError, match="choose native or one of x86-avx512, x86-avx2, aarch64-neon"):
        get_target(name)


def test_names_are_keys() -> None:
    assert all(get_target(name) is target and target.name == name for name, target in TARGETS.items())
