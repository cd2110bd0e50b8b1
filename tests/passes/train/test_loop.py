"""The fine-tuning loop: killed and resumed to the last bit, stopped early, stopped by NaN; damaged checkpoints."""

from __future__ import annotations

import hashlib
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from secateur.ir import InputError
from secateur.passes.train import Hook, Loop, Masks, Objective, Settings, Tuned
from secateur.passes.train.checkpoint import MAGIC, decoded, load_checkpoint, save_checkpoint
from secateur.passes.train.statistics import Batch, reestimate


class Shuffled:
    """Twenty examples in four batches, in a new order each time, drawn from torch's generator."""

    def __init__(self, labels: bool = True, poison: int | None = None) -> None:
        random = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(20, 2, 5, 5, generator=random), torch.arange(20) % 3
        self.labels, self.poison, self.turn = labels, poison, 0

    def __len__(self) -> int:
        return 4

    def __iter__(self):  # type: ignore[no-untyped-def]
        self.turn += 1
        for part in torch.randperm(20).split(5):
            x = self.x[part]
            if self.poison is not None and self.turn > self.poison:
                x = x * math.inf
            yield (x,), self.y[part] if self.labels else None, 5


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(36, 3)
    )


TEACHER = net(1).eval()
VALIDATION = list(Shuffled())
SETTINGS = Settings(epochs=3, rate=0.05, every=0.0, statistics=2)
Killed = type("Killed", (BaseException,), {})


def run(module: nn.Module, checkpoint: Path | None = None, kill: int | None = None, **options: object) -> Tuned:
    """Train; ``kill``: after so many batches, as from outside."""
    seen = [0]

    def progress(done: int, total: int | None, what: str, /) -> None:
        seen[0] += 1
        if seen[0] == kill:
            raise Killed

    given = {"data": Shuffled(), "settings": SETTINGS, "validation": VALIDATION, "teacher": TEACHER}
    random = torch.get_rng_state()
    loop = Loop(module, **{**given, **options}, checkpoint=checkpoint, progress=progress)  # type: ignore[arg-type]
    try:
        return loop.run()
    finally:
        assert torch.equal(random, torch.get_rng_state())  # the caller's generator is where it was


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("kill", [1, 3, 4, 6, 12])
def test_killed_and_resumed_is_as_if_nothing_had_been(tmp_path: Path, kill: int, optimiser: str) -> None:
    settings = Settings(epochs=3, rate=0.05, every=0.0, statistics=2, optimiser=optimiser)  # type: ignore[arg-type]
    whole, file = net(), tmp_path / "state"
    wanted = run(whole, settings=settings)
    broken = net()
    with pytest.raises(Killed):
        run(broken, file, kill, settings=settings)
    again = net(5) if file.exists() else net()  # what it holds comes from the checkpoint
    found = run(again, file, settings=settings)
    assert found == wanted
    assert same(again, whole)
    assert run(net(6), file, settings=settings) == wanted  # it is through: nothing trains again


def test_hooks_resume_with_the_loop(tmp_path: Path) -> None:
    def masked(module: nn.Module) -> list[Hook]:
        return [Masks(module, {"5.weight": torch.arange(108).view(3, 36) % 3 > 0})]

    whole, broken, again, file = net(), net(), net(7), tmp_path / "state"
    run(whole, hooks=masked(whole))
    with pytest.raises(Killed):
        run(broken, file, 5, hooks=masked(broken))
    run(again, file, hooks=masked(again))
    assert same(whole, again)
    assert not whole[5].weight.flatten()[::3].any()  # type: ignore[index, union-attr]


def test_checkpoints_that_cannot_be_believed(tmp_path: Path) -> None:
    file = tmp_path / "state"
    run(net(), file, settings=Settings(epochs=1))
    good = file.read_bytes()
    assert load_checkpoint(file)["epoch"] == 1
    for damaged, said in (
        (good[: len(good) // 2], "is damaged"), (good[:40], "cut off"), (b"", "cut off"),
        (b"PK" + good, "not a checkpoint"), (good[:-100] + bytes([good[-100] ^ 1]) + good[-99:], "is damaged"),
    ):  # fmt: skip
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=said):
            run(net(), file, settings=Settings(epochs=1))
    file.write_bytes(good)
    with pytest.raises(InputError, match="is of another run"):
        run(net(), file, settings=Settings(epochs=2))
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(tmp_path / "nosuch")
    with pytest.raises(InputError, match="cannot write"):
        save_checkpoint(tmp_path / "nosuch" / "state", {})


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    trace, file = tmp_path / "ran", tmp_path / "state"
    save_checkpoint(file, {"evil": Evil(trace)})
    with pytest.raises(InputError, match="more than tensors and numbers"):
        load_checkpoint(file)
    data = pickle.dumps(Evil(trace))
    with pytest.raises(InputError, match="more than tensors"):
        decoded(MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data, "it")
    assert not trace.exists()
    save_checkpoint(file, [1])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="holds a list"):
        load_checkpoint(file)


def test_a_loss_that_is_not_finite_keeps_the_last_good_weights() -> None:
    module = net()
    found = run(module, data=Shuffled(poison=3), settings=Settings(epochs=5, rate=0.05, statistics=0), validation=None)
    assert len(found.epochs) == found.best == 3
    assert "the loss became nan at batch 1 in epoch 4; the weights of epoch 3 are kept" in found.stopped
    wanted = net()
    assert all(bool(x.isfinite().all()) for x in module.state_dict().values())
    before = {name: x.clone() for name, x in wanted.state_dict().items()}
    with pytest.raises(InputError, match="before an epoch was through; the weights are what they were"):
        run(wanted, data=Shuffled(poison=0), validation=None)
    assert all(torch.equal(x, before[name]) for name, x in wanted.state_dict().items())


def test_training_stops_where_nothing_gets_better_and_keeps_the_best() -> None:
    module = net()
    settings = Settings(epochs=9, rate=0.0, patience=2, statistics=0)
    found = run(module, settings=settings)
    assert len(found.epochs) == 3
    assert found.best == 1
    assert "nothing better since epoch 1" in str(found)
    assert "(kept)" in str(found).splitlines()[0]


def test_distillation_needs_no_labels() -> None:
    module, teacher = net(), net(1).eval()
    data = Shuffled(labels=False)
    found = run(module, data=data, validation=list(Shuffled(labels=False)), settings=Settings(epochs=8, rate=0.1))
    assert found.epochs[-1].loss < found.epochs[0].loss
    with torch.no_grad():
        agree = (module(data.x).argmax(1) == teacher(data.x).argmax(1)).double().mean()
    assert found.epochs[found.best - 1].top1 == pytest.approx(float(agree))
    with pytest.raises(InputError, match="nothing to train on"):
        run(net(), data=data, settings=Settings(objective=Objective(0.0)), validation=None)


def test_the_distillation_loss_by_hand() -> None:
    mine, theirs = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(9.0), 0.0]])
    (found,) = Objective(1.0, 1.0).losses([mine], None, [theirs]).tolist()
    assert found == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    (both,) = Objective(0.25, 1.0).losses([mine], torch.tensor([0]), [theirs]).tolist()
    assert both == pytest.approx(0.25 * found + 0.75 * math.log(2))
    (cooled,) = Objective(1.0, 2.0).losses([mine], None, [theirs]).tolist()
    assert cooled == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)))  # 9 ** (1/2) : 1
    picture = torch.ones(2, 1, 3, 3)
    assert Objective(1.0).losses([picture * 3], None, [picture]).tolist() == pytest.approx([2, 2])


def test_bfloat16_trains_weights_in_single_precision() -> None:
    module = net()
    seen: list[torch.dtype] = []
    module[5].register_forward_hook(lambda _, __, out: seen.append(out.dtype))  # type: ignore[index]
    found = run(module, settings=Settings(epochs=3, rate=0.05, precision="bf16"), validation=None)
    assert torch.bfloat16 in seen
    assert all(p.dtype == torch.float32 for p in module.parameters())
    assert found.epochs[-1].loss < found.epochs[0].loss


def test_statistics_are_the_mean_over_the_batches() -> None:
    module = net().train()
    batches: list[Batch] = [((torch.randn(6, 2, 5, 5) + shift,), None, 6) for shift in (0.0, 3.0)]
    reestimate(module, batches)
    with torch.no_grad():
        means = torch.stack([module[0](x).mean((0, 2, 3)) for (x,), _, _ in batches]).mean(0)  # type: ignore[index]
    torch.testing.assert_close(module[1].running_mean, means)  # type: ignore[index, union-attr]
    assert module.training
    assert module[1].momentum == 0.1  # type: ignore[index, union-attr]


def test_data_that_cannot_be_gone_through_again() -> None:
    with pytest.raises(InputError, match="the second time: give a list"):
        run(net(), data=iter(list(Shuffled())), settings=Settings(statistics=0), validation=None)
    with pytest.raises(InputError, match="hold no batch"):
        run(net(), data=[])
    with pytest.raises(InputError, match="validation data hold no example"):
        run(net(), validation=[])
    with pytest.raises(InputError, match="no parameter that takes gradients"):
        run(nn.ReLU())


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"rate": -1.0}, {"rate": math.nan}, {"patience": 0}, {"precision": "f16"}, {"optimiser": "lion"}],
)
def test_settings_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Settings(**options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="share from 0 to 1"):
        Objective(1.5)
