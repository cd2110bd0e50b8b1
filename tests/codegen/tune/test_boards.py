"""Tuning on boards behind a tracker: all are used, one that dies or hangs costs nothing, wrong numbers never count."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.lib import emulated
from bench.lib import local_boards as boards
from bench.lib.local_boards import Listener
from secateur import codegen
from secateur.codegen.host import family, family_in, features_in
from secateur.codegen.kernels.conv.spec import ConvChoice, ConvSpec
from secateur.codegen.plan.family import Kernel
from secateur.codegen.plan.strides import Strides
from secateur.codegen.records import Records
from secateur.codegen.targets import get_target, native
from secateur.codegen.tune import remote
from secateur.codegen.tune.board import Board, Facts, here
from secateur.codegen.tune.boards import Boards
from secateur.codegen.tune.portable import export, for_here
from secateur.codegen.tune.tracker import Tracker
from secateur.codegen.tune.tuner import Outcome
from secateur.ir import InputError, Unsupported
from support.nets import CHAIN, draw
from support.network import Net

rpc = pytest.importorskip("tvm.rpc", reason="code generation needs apache-tvm")
KEY = "loop"
PLANE = Strides(1024, 1024, 128, 16)
SPEC = ConvSpec(16, 1, 32, 2, 8, 8, (1, 1), (1, 1), (1, 1), PLANE, PLANE, False)
KERNELS: dict[int, Kernel] = {0: (SPEC, ConvChoice(1, 1, 4)), 1: (SPEC, ConvChoice(2, 1, 4))}
LONG = 100.0  # seconds that no test takes


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Listener]]:
    """A tracker and three servers."""
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    with boards.started(KEY, 3) as found:
        yield found


@pytest.fixture(scope="module")
def tracker(servers: list[Listener]) -> Tracker:
    found = Tracker(boards.HOST, servers[0].port, KEY)
    until(lambda: found.boards() == 3)  # servers register after they listen
    return found


def until(true: Callable[[], bool]) -> None:
    """Wait for what another process does, of which nobody hears."""
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)  # servers register and leave when they please, in processes of their own: so it is asked again


class Watched(Boards):
    """Counts the calls to boards that were begun."""

    calls: int = 0

    def _told(self, worker: Any, kind: str, rest: list[Any], done: dict[int, Any]) -> None:
        self.calls += kind == "at" and rest[0] is not None
        super()._told(worker, kind, rest, done)


def test_boards_outlive_a_tuning_that_ends_while_they_run_kernels(servers: list[Listener], tracker: Tracker) -> None:
    """TVM's servers take no more sessions after one whose client vanished in the middle of a call."""
    endless, seen = 10**6, 2 * len(KERNELS)  # compiling and checking are not yet what takes forever
    with Watched(native(), 1, workers=3, rounds=endless, memory=1 << 24, patience=LONG, tracker=tracker) as team:
        for name in range(3):
            team.submit(name, KERNELS)
        end = time.monotonic() + LONG
        while team.calls < 3 * seen + 30:
            assert not team.wait(0.02) and time.monotonic() < end
    ports = set[int]()
    end = time.monotonic() + LONG
    while ports != {server.port for server in servers[1:]}:  # one that is handed out twice was free twice
        place = tracker.request(LONG)
        assert place is not None and time.monotonic() < end
        rpc.connect(*place)  # and leave
        ports.add(place[1])


def test_a_worker_ends_between_two_calls_to_a_board_and_never_in_one() -> None:
    """SIGTERM waits until it is looked for, and for nothing where no board is at work."""

    def ended(*_: object) -> None:
        raise InterruptedError

    before, handler = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.signal(signal.SIGTERM, ended)
    try:
        remote.hold_back_the_end()
        remote.end_if_asked()
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        with pytest.raises(SystemExit):
            remote.end_if_asked()
        with pytest.raises(InterruptedError), remote.ends_at_once():
            pytest.fail("it goes on")
        remote.end_if_asked()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGTERM, handler)


def test_layers_of_a_latency_table_are_measured_on_boards(tracker: Tracker, tmp_path: Path) -> None:
    """What is in the records is not measured again; what is not, and cannot be for lack of time, is said."""
    one, other = (
        net.graph(net.node("softmax", net.conv("x", 8, k=1), axis=1)) for net in (Net(1, 8, 2, 2), Net(1, 8, 2, 4))
    )
    file = tmp_path / "r.jsonl"
    (first,), outcome = codegen.kernel_seconds([one], LONG, file, native(), tracker=tracker)
    assert (outcome.measured, outcome.left) == (1, 0)
    assert first == min(record.seconds for record in Records(file).table.values())
    again, outcome = codegen.kernel_seconds([one, other], 0, file, native(), tracker=tracker)
    assert again == [first, None]
    assert outcome.left == 1


class Unlucky(Boards):
    """The first board that is handed out dies; the second stops answering, and counts as silent for long at once."""

    servers: list[Listener]
    seen: list[str]
    stuck: int = 0

    def _told(self, worker: Any, kind: str, rest: list[Any], done: dict[int, Any]) -> None:
        if kind == "board" and rest[0] not in self.seen and len(self.seen) < 2:
            self.seen.append(rest[0])
            victim = next(s for s in self.servers if rest[0].endswith(f":{s.port}"))
            victim.signal(signal.SIGSTOP if len(self.seen) == 2 else signal.SIGKILL)
            self.stuck = worker.pid if len(self.seen) == 2 else 0
        super()._told(worker, kind, rest, done)
        if worker.pid == self.stuck:
            worker.since -= 2 * self.patience


def test_a_board_that_dies_and_one_that_hangs_cost_nothing(servers: list[Listener], tracker: Tracker) -> None:
    seen: list[str] = []
    with Unlucky(native(), 1, rounds=3, memory=0, patience=LONG, tracker=tracker) as team:
        team.servers, team.seen = servers[1:], seen
        assert team.free == 3
        for name in range(3):
            team.submit(name, KERNELS)
        found: dict[int, Any] = {}
        while len(found) < 3:
            found |= team.wait(LONG)
    assert {name: set(times) for name, times in found.items()} == {name: {0, 1} for name in range(3)}
    origins = [team.origin(name) for name in range(3)]
    assert {origin.family for origin in origins} == {family()}
    assert len({origin.board for origin in origins}) == 1
    assert not any(origins[0].board.endswith(lost) for lost in seen)


# Skipped where qemu, a cross compiler or an arm64 Python is missing: the README's test command asks for nothing but
# Python. CI installs them, and with --emulated a skip fails there (tests/conftest.py).
@pytest.mark.emulated
@pytest.mark.skipif(emulated.missing() is not None, reason=str(emulated.missing()))
def test_an_emulated_board_measures_what_was_compiled_for_it(tracker: Tracker) -> None:
    plane, target = Strides(256, 256, 32, 4), get_target("aarch64:cortex-a76")
    small = ConvSpec(4, 1, 8, 2, 8, 8, (1, 1), (1, 1), (1, 1), plane, plane, False)
    arm = replace(tracker, key="arm")
    options = {"command": emulated.python(), "env": emulated.environment()}
    with boards.started("arm", 1, str(tracker.port), **options):  # type: ignore[arg-type]
        until(lambda: arm.boards() == 1)
        with Boards(target, 1, rounds=3, memory=0, patience=LONG, tracker=arm) as team:
            team.submit(0, {0: (small, ConvChoice(1, 1, 4)), 1: (small, ConvChoice(2, 1, 4))})
            found = team.wait(LONG)
    assert set(found[0]) == {0, 1}, team.remarks
    assert team.origin(0).family.startswith("arm 0x"), team.origin(0)


def test_a_wrong_key_is_named_with_those_there_are(tracker: Tracker) -> None:
    with pytest.raises(InputError, match=r"has no board under the key 'loup'.*did you mean loop.*it has .*loop \(\d\)"):
        replace(tracker, key="loup").check()


def test_nobody_and_somebody_else_at_the_address() -> None:
    with socket.create_server((boards.HOST, 0)) as other:
        place = Tracker(boards.HOST, other.getsockname()[1], KEY)
        threading.Thread(target=lambda: other.accept()[0].close()).start()
        with pytest.raises(Unsupported, match=r"what answers at .* is not a tracker"):
            place.check()
    with pytest.raises(Unsupported, match=r"no tracker answers at .*refused.*start one with: python -m tvm.exec"):
        place.check()


@pytest.mark.parametrize(("address", "key"), [("host:x", "k"), (":9190", "k"), ("host:99999", "k"), ("host:1", "")])
def test_addresses_that_are_none(address: str, key: str) -> None:
    with pytest.raises(InputError, match="--tracker"):
        Tracker.parse(address, key)


@dataclass
class Line:
    """A tracker, and the pipe of a worker: what it says is kept."""

    said: list[tuple[Any, ...]]

    def request(self, seconds: float) -> tuple[str, int, str]:
        return "there", 1, "password"

    def send(self, message: tuple[Any, ...]) -> None:
        self.said.append(message)

    def ends(self) -> list[tuple[Any, ...]]:
        return [message for message in self.said if message[0] not in ("at", "queue", "board")]


def worked(monkeypatch: pytest.MonkeyPatch, change: Any) -> list[tuple[Any, ...]]:
    """What a worker says of a board that ``change`` makes of this machine."""
    line = Line([])
    monkeypatch.setattr(remote, "connect", lambda place, library: change(here(library)))
    remote.Worker(line)(line, native(), KERNELS, 3, 0)  # type: ignore[arg-type]
    return line.ends()


def off(board: Board, last: int) -> Board:
    """The results of kernels up to ``last`` are wrong in one of many numbers."""
    calls, fetch = iter(range(100)), board.fetch

    def fetched(array: Any) -> Any:
        found = fetch(array)
        if found.dtype == np.float64 and next(calls) <= last:
            found[3] *= 1.1
        return found

    board.fetch = fetched
    return board


def test_wrong_numbers_never_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ((kind, times, origin),) = worked(monkeypatch, lambda board: board)
    assert (kind, set(times), origin.family) == ("times", {0, 1}, family())
    ((kind, board, why),) = worked(monkeypatch, lambda board: off(board, 9))
    assert (kind, board.endswith("there:1")) == ("refused", True)
    assert "computes other numbers than this machine" in why
    wrong, (kind, times, _) = worked(monkeypatch, lambda board: off(board, 0))
    assert (wrong[0], wrong[2], kind, set(times)) == ("wrong", 1, "times", {1})


def test_boards_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Facts("pi", "aarch64", "0.20.0", "", frozenset({"asimd"}))
    target = get_target("aarch64:cortex-a76")
    assert facts.unfit(target, "0.27.0") == "runs TVM 0.20.0, and this machine 0.27.0; install apache-tvm==0.27.0 there"
    assert "lacks asimddp, asimdrdm" in str(replace(facts, tvm="0.27.0").unfit(target, "0.27.0"))
    assert replace(facts, tvm="", features=frozenset()).unfit(target, "0.27.0") is None
    monkeypatch.setattr(remote, "version", lambda name: "0.28")
    ((kind, _, why),) = worked(monkeypatch, lambda board: board)
    assert kind == "refused"
    assert "and this machine 0.28; install apache-tvm==0.28 there" in why


def test_families_and_features_of_processors() -> None:
    x86 = (
        "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nflags\t\t: fma avx2\n" * 2
    )
    arm = "".join(f"Features : fp asimd\nCPU implementer : 0x41\nCPU part : {part}\n" for part in ("0xd0b", "0xd05"))
    assert family_in(x86) == "AuthenticAMD 25/17"
    assert family_in(arm) == "arm 0x41/0xd05+0x41/0xd0b"
    assert family_in("") == ""
    assert (features_in(x86), features_in(arm)) == ({"fma", "avx2"}, {"fp", "asimd"})


def test_templates_of_another_architecture_can_be_computed_here(tmp_path: Path) -> None:
    """What a board's results are compared with: the facts of its core in code for this machine."""
    target = for_here(get_target("aarch64:cortex-a76"))
    assert (target.lanes, target.triple) == (4, native().triple)
    plane = Strides(256, 256, 32, 4)
    spec = ConvSpec(4, 1, 8, 2, 8, 8, (1, 1), (1, 1), (1, 1), plane, plane, False)
    assert set(export({5: (spec, ConvChoice(1, 1, 4))}, target, tmp_path / "k.so", 0)) == {5}
    assert here(tmp_path / "k.so").facts().family == family()


def test_gpus_are_not_measured(tmp_path: Path) -> None:
    tracker = Tracker(boards.HOST, 1, KEY)
    with pytest.raises(InputError, match="cannot tune for opencl"):
        codegen.tune(draw(CHAIN), 9, tmp_path / "r.jsonl", "opencl", tracker=tracker)
    with pytest.raises(InputError, match="cannot tune for opencl"):
        codegen.write_candidates(draw(CHAIN), tmp_path / "c", tmp_path / "r.jsonl", "opencl")


def test_a_missing_cross_compiler_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no aarch64-linux-gnu-gcc.*Debian: gcc-aarch64-linux-gnu"):
        codegen.tune(draw(CHAIN), 9, tmp_path / "r.jsonl", "aarch64-neon", tracker=Tracker(boards.HOST, 1, KEY))


def test_no_board_left_ends_tuning(servers: list[Listener], tracker: Tracker, tmp_path: Path) -> None:
    """The last board dies before it measures anything: the sentence says so, and the file is untouched."""
    for server in servers[1:]:
        server.signal(signal.SIGKILL)
    until(lambda: not tracker.boards())  # the tracker hears of it through the broken connections
    with pytest.raises(InputError, match="has no board under the key 'loop'; it has none at all"):
        codegen.tune(draw(CHAIN), 9, tmp_path / "r.jsonl", native(), tracker=tracker)
    assert not (tmp_path / "r.jsonl").exists()
    assert Records(tmp_path / "r.jsonl").table == {}
    assert Outcome(remarks=("board x lacks y",)).notes == ("board x lacks y",)
