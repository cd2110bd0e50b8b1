"""``distill``: nearer to the original on data that it did not see, repeatable, and never farther than it was."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import secateur
from secateur.ir import Array, Graph, InputError
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes import PASSES, parse_spec
from secateur.passes.compensate import Distill, Refit, tuning
from secateur.passes.compensate.augment import drawn, mixed
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.rewrite.slim import Slim
from support.network import Net, random_keep


def pictures(seed: int, count: int = 64, batch: int = 16) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((batch, 3, 8, 8)).astype(np.float32) for _ in range(count // batch)]


def network(batch: int | None = None) -> Graph:
    net = Net(batch or 2, 3, 8, 8, seed=3)
    x = net.relu(net.bn(net.conv("x", 12)))
    return net.graph(net.head(net.relu(net.conv(x, 12))))


def slimmed(graph: Graph, data: list[Array]) -> Graph:
    coupled = Couple()(graph)
    coupling = coupled.note(Coupling)
    assert coupling is not None
    keep = random_keep(coupling, np.random.default_rng(1))
    return Slim()(in_context(coupled, calibration=Calibration(data, 5)).with_note(KeepMask(keep)))


def apart(mine: Graph, original: Graph, data: list[Array]) -> float:
    """The divergence of the classes' probabilities, which is what tuning follows."""
    total = 0.0
    for x in data:
        q, p = (torch.log_softmax(torch.from_numpy(evaluate(g, {"x": x})[0]) / 2, 1) for g in (mine, original))
        total += float((p.exp() * (p - q)).sum())
    return total


def test_it_comes_nearer_on_other_data_too_and_gives_the_same_again() -> None:
    graph = network(16)
    slim = slimmed(graph, pictures(0))
    tuned = Distill(steps=60, rate=0.02, batch=16)(slim)
    fresh = pictures(9, 32)
    assert apart(tuned, graph, fresh) < 0.9 * apart(slim, graph, fresh)
    again = Distill(steps=60, rate=0.02, batch=16)(slim)
    for name, weight in tuned.weights.items():
        np.testing.assert_array_equal(weight, again.weights[name])
    of_mixtures = Distill(steps=60, rate=0.02, batch=16, mix=True)(slim)
    assert apart(of_mixtures, graph, fresh) < 0.9 * apart(slim, graph, fresh)
    assert any(not np.array_equal(weight, tuned.weights[name]) for name, weight in of_mixtures.weights.items())
    changed = {n for n, w in tuned.weights.items() if not np.array_equal(w, slim.weights[n])}
    assert changed
    assert changed <= Distill.may_change(slim)


def test_statistics_of_batch_norms_stay() -> None:
    slim = slimmed(network(16), pictures(0))
    tuned = Distill(steps=3, rate=0.02)(slim)
    for node in (n for n in slim.nodes if n.op == "batch_norm"):
        for name in node.inputs[3:5]:
            np.testing.assert_array_equal(tuned.weights[name or ""], slim.weights[name or ""])


def test_what_makes_it_worse_is_not_kept() -> None:
    """At a rate that ruins every weight, and one that overflows, the weights at the beginning are the best."""
    slim = slimmed(network(16), pictures(0))
    for rate in (30.0, 1e30):
        tuned = Distill(steps=10, rate=rate, batch=16)(slim)
        for name, weight in slim.weights.items():
            np.testing.assert_array_equal(tuned.weights[name], weight)


def test_few_pictures_that_refit_has_seen_do_not_hold_tuning_back() -> None:
    """On these pictures as they are, two of which judge, nothing comes out nearer than what was fitted to them."""
    graph = network(16)
    few, fresh = smooth(0, 16), [smooth(seed, 16) for seed in range(9, 13)]
    slim = Refit()(slimmed(graph, [few]))
    tuned = Distill(steps=60, rate=0.02, batch=16)(slim)
    assert apart(tuned, graph, fresh) < 0.8 * apart(slim, graph, fresh)


def smooth(seed: int, count: int) -> Array:
    small = np.random.default_rng(seed).standard_normal((count, 3, 4, 4)).astype(np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(small), (8, 8), mode="bilinear").numpy()


def test_a_network_of_fixed_batch_is_fed_in_batches_of_its_size() -> None:
    graph = network()  # of two
    tuned = Distill(steps=40, rate=0.02, batch=5)(slim := slimmed(graph, pictures(0, 32)))
    fresh = [x[i : i + 2] for x in pictures(9, 16) for i in range(0, 16, 2)]
    assert apart(tuned, graph, fresh) < 0.9 * apart(slim, graph, fresh)


def test_pictures_are_shifted_and_mirrored_and_nothing_else_is() -> None:
    x, random = torch.arange(64.0).reshape(1, 1, 8, 8).expand(200, 1, 8, 8), torch.Generator().manual_seed(0)
    found = drawn(x, random, True)
    assert found.shape == x.shape
    assert found.stride() == torch.empty(found.shape).stride(), "torch may crash where channels come last"
    inner = found[:, 0, 1:-1, 1:-1]  # a shift by up to one repeats the border alone
    steps = inner[:, :, 1:] - inner[:, :, :-1]
    assert set(steps.unique().tolist()) == {-1.0, 1.0}
    assert {tuple(s.unique().tolist()) for s in steps} == {(-1.0,), (1.0,)}, "a picture is mirrored as a whole"
    assert len({float(p[0, 3, 3]) for p in found}) > 4
    unmirrored = drawn(x, random, False)[:, 0, 1:-1, 1:-1]
    assert set((unmirrored[:, :, 1:] - unmirrored[:, :, :-1]).unique().tolist()) == {1.0}
    last = drawn(x.permute(0, 2, 3, 1), torch.Generator().manual_seed(0), True)
    assert torch.equal(last.permute(0, 3, 1, 2), drawn(x, torch.Generator().manual_seed(0), True))
    for other in (torch.ones(4, 5, 8, 8), torch.ones(4, 3), torch.ones(4, 3, 8, 8, dtype=torch.int64)):
        assert drawn(other, random, True) is other


def test_squares_see_what_is_added_to_all_scores_and_the_divergence_does_not() -> None:
    """Nothing was cut, and every score is one too high: probabilities are as they were, numbers are not."""
    graph = Couple()(network(16))
    coupling = graph.note(Coupling)
    assert coupling is not None
    whole = Slim()(in_context(graph, calibration=Calibration(pictures(0), 5)).with_note(
        KeepMask(np.ones(coupling.size, bool))))  # fmt: skip
    bias = str(next(n for n in whole.nodes if n.op == "linear").inputs[2])
    slim = whole.rewrite(weights={**whole.weights, bias: whole.weights[bias] + np.float32(1)})
    np.testing.assert_array_equal(Distill(steps=30, inner=0.0)(slim).weights[bias], slim.weights[bias])
    (x,) = pictures(9, 16)
    wanted, before, after = (
        evaluate(g, {"x": x})[0] for g in (graph, slim, Distill(steps=60, rate=0.02, inner=0.0, by="square")(slim))
    )
    assert np.abs(after - wanted).mean() < 0.5 * np.abs(before - wanted).mean()


def test_the_original_answers_once_what_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outputs are kept while they fit; either way the distances are the same."""
    for limit, asked in ((tuning.KNOWN, 2), (0, 4)):
        monkeypatch.setattr(tuning, "KNOWN", limit)
        run, feeds = tuning.Tuning(slimmed(network(16), pictures(0)), Distill(steps=1, batch=16, augment=False)), []
        teacher = run.teacher
        monkeypatch.setattr(run, "_wanted", lambda feed, t=teacher, f=feeds: f.append(feed) or t(feed["x"]))
        found = [run._distance(torch.arange(32)) for _ in range(2)]
        assert found[0] == found[1] > 0
        assert len(feeds) == asked


def test_inner_layers_follow_at_the_channels_that_are_left() -> None:
    """A network that lost channels it never used has inner distances of zero to begin with."""
    slim = slimmed(network(16), pictures(0))
    run = tuning.Tuning(slim, Distill(steps=1))
    assert len(run.inner) >= 2
    feed, count = next(iter(run._feeds(torch.arange(8), None)))
    with torch.no_grad():
        without, inner = (run._losses(feed, count, share, run._wanted(feed)) for share in (0.0, 1.0))
    assert without.shape == inner.shape == (count,)
    assert bool((inner > without).all()), "the second layer misses inputs"


def test_mixtures_lie_between_two_examples_at_one_share_of_all_inputs() -> None:
    ones = {"a": torch.ones(64, 3, 4, 4), "b": torch.ones(64, 5)}
    others = {name: -x for name, x in ones.items()}
    found = mixed(ones, others, torch.Generator().manual_seed(0))
    share = found["b"][:, 0]
    for x in found.values():
        torch.testing.assert_close(x.flatten(1), share[:, None].expand_as(x.flatten(1)))
    assert -1 <= float(share.min()) < -0.8, "evenly from one example to the other"
    assert 0.8 < float(share.max()) <= 1
    assert abs(float(share.mean())) < 0.25


@pytest.mark.parametrize("batch", [1, 16, None])
def test_steps_see_mixtures_and_what_is_watched_stays_as_it_is(batch: int | None) -> None:
    """Of networks that take one example at a time, too: others are drawn of the whole step's."""
    run = tuning.Tuning(slimmed(network(batch), pictures(0)), Distill(steps=1, batch=16, augment=False, mix=True))
    chosen = torch.arange(16)
    plain, steps = ([feed["x"] for feed, _ in run._feeds(chosen, None, mix)] for mix in (False, True))
    torch.testing.assert_close(torch.cat(plain), run.pool["x"][:16])
    differ = (torch.cat(steps) != torch.cat(plain)).flatten(1).any(1)
    assert int(differ.sum()) >= 12, "few are mixed with themselves"
    distance = run._distance(chosen)
    assert run._distance(chosen) == distance


def test_whole_numbers_have_no_mixtures() -> None:
    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vectors, self.conv, self.last = (
                torch.nn.Embedding(20, 8),
                torch.nn.Conv1d(8, 12, 3),
                torch.nn.Linear(12, 4),
            )

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return self.last(self.conv(self.vectors(words).transpose(1, 2)).relu().mean(2))

    data = [torch.randint(20, (16, 10), generator=torch.Generator().manual_seed(i)) for i in range(2)]
    for text, refused in (("distill{steps=2}", False), ("distill{steps=2,mix=true}", True)):
        policy = f"l1,uniform{{macs=60%,round_to=1}},slim,{text}"
        with pytest.raises(InputError, match="whole numbers have no mixtures") if refused else nullcontext():
            secateur.compile(Words().eval(), policy, example_inputs=(data[0],), calibration=data)


@pytest.mark.parametrize(
    "text",
    [
        "distill{time=0}",
        "distill{steps=-1}",
        "distill{rate=-1,steps=3}",
        "distill{batch=0,steps=3}",
        "distill{by=l1,steps=3}",
    ],
)
def test_numbers_that_make_no_sense(text: str) -> None:
    (step,) = parse_spec(text, PASSES)
    with pytest.raises(InputError, match="distill"):
        step(slimmed(network(16), pictures(0)))


def test_times_have_units() -> None:
    assert parse_spec("distill{time=2m}", PASSES) == (Distill(time=120.0),)
    assert parse_spec("distill{time=90s}", PASSES) == (Distill(time=90.0),)


def test_the_whole_way_in_a_policy() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 4)
    ).eval()
    data = [torch.from_numpy(x) for x in pictures(0)]
    policy = "l1,global{macs=60%,round_to=1},slim,refit,distill{steps=5}"
    slim = secateur.compile(module, policy, example_inputs=(data[0][:1],), calibration=data)
    assert slim.report.verification is not None
    assert slim.report.verification["passed"]
    assert [p["spec"] for p in slim.report.passes][-1] == "distill{steps=5}"


@pytest.mark.parametrize("mix", [False, True])
def test_a_run_that_was_killed_ends_as_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mix: bool
) -> None:
    """Killed between two states that were written, so that steps are taken again; a run that has ended takes none."""
    slim = slimmed(network(), pictures(0))
    how = Distill(steps=12, rate=0.02, batch=16, mix=mix)
    whole = how(slim)
    steps: list[int] = []

    def tell(number: int, total: int | None, what: str) -> None:
        steps.append(number)
        monkeypatch.setattr(tuning, "EVERY", 0.0 if number < 6 else 1e9)
        if len(steps) == 8:
            raise KeyboardInterrupt

    kept = in_context(slim, checkpoints=tmp_path, progress=tell)
    with pytest.raises(KeyboardInterrupt):
        how(kept)
    for taken in (list(range(6, 13)), []):
        steps.clear()
        for name, weight in how(kept).weights.items():
            np.testing.assert_array_equal(weight, whole.weights[name])
        assert steps == taken
    (state,) = tmp_path.iterdir()
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(InputError, match="is damaged"):
        how(kept)
