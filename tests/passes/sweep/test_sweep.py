"""The sweep against direct computation, on networks whose every number can be had another way."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import socket
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import nn

import secateur
from secateur.ir import Array, Graph
from secateur.ir.exporters.torch.module import evaluate, to_module
from secateur.passes.coupling.couple import Couple
from secateur.passes.sweep import Examples, Gates, InputMoments, Pooled, Reach, ReadSite, WeightGradients, consumers
from secateur.passes.sweep.needs import ExampleSums, GateSums, Moments, need_bytes
from secateur.passes.sweep.read_sites import read_sites, sizes, units_at
from secateur.passes.sweep.run import sweep
from secateur.passes.sweep.unfold import draw_places, extent, windows
from support.network import Net
from support.swept import all_needs, coupling_of, data, found, network


def value_at(graph: Graph, site: ReadSite, x: Array) -> Array:
    """What a site reads, run through the public executor."""
    name = graph.producer[site.node].inputs[site.input]
    return evaluate(dataclasses.replace(graph, outputs=(name,)), {"x": x})[0]


def test_examples_and_pooled_are_those_of_the_values() -> None:
    graph, x = network(), data(8)
    places = read_sites(graph, coupling_of(graph))
    note = found(sweep(graph, x, [*map(Examples, places), *map(Pooled, places)]))
    assert note.examples == 8
    assert note.loss is None
    for site in places:
        axis, _ = units_at(graph, coupling_of(graph), site)
        seen = np.concatenate([value_at(graph, site, part) for part in x]).astype(np.float64)
        rows = np.moveaxis(seen, axis, 0).reshape(seen.shape[axis], -1)
        sums = note.of(Examples(site), ExampleSums)
        assert sums.count == rows.shape[1]
        np.testing.assert_allclose(sums.mean, rows.mean(1), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(sums.variance, rows.var(1), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(sums.zeros, (rows == 0).sum(1))
        np.testing.assert_allclose([sums.least, sums.most], [rows.min(1), rows.max(1)], rtol=1e-6)
        others = tuple(a for a in range(1, seen.ndim) if a != axis)
        np.testing.assert_allclose(note.of(Pooled(site), np.ndarray), seen.mean(others), rtol=1e-5, atol=1e-6)


def test_errors_reach_as_far_as_the_jacobian_says() -> None:
    """Errors of a layer's channels move y = B relu(A x) by B's columns where the unit is on; labels change nothing."""
    net = Net(1, 3, 1, 1)
    inner = net.conv("x", 4, 1)
    graph = Couple()(net.graph(net.conv(net.relu(inner), 2, 1, bias=False)))
    x = np.random.default_rng(0).standard_normal((2000, 3, 1, 1)).astype(np.float32)
    reach = found(sweep(graph, [x], [Reach(inner), Gates()], batch=500)).of(Reach(inner), np.ndarray)
    weights = [graph.weights[n.inputs[1] or ""].reshape(n.out.shape[1], -1) for n in graph.nodes if n.op == "conv"]
    bias = graph.weights[graph.producer[inner].inputs[2] or ""]
    hidden = x.reshape(-1, 3) @ weights[0].T + bias
    y = np.maximum(hidden, 0) @ weights[1].T
    want = (hidden > 0).mean(0) * (weights[1] ** 2).sum(0) / (y**2).sum(1).mean()
    np.testing.assert_allclose(reach, want, rtol=0.08, atol=0.01)


def test_input_moments_are_those_of_the_unfolded_input() -> None:
    graph, x = network(), data(8)
    coupling = coupling_of(graph)
    needs = [InputMoments(site, positions=10**6) for site in consumers(graph, coupling)]
    note = found(sweep(graph, x, needs))
    for need in needs:
        node = graph.producer[need.site.node]
        seen = torch.from_numpy(np.concatenate([value_at(graph, need.site, part) for part in x])).double()
        groups = 1
        if node.op == "conv":
            kernel, groups = graph.weights[node.inputs[1] or ""].shape[2:], node.attrs["groups"]
            u = F.unfold(seen, kernel, padding=node.attrs["pad"][0], stride=node.attrs["stride"])
            seen = u.transpose(1, 2).reshape(-1, u.shape[1])
        u = seen.reshape(len(seen), groups, -1).transpose(0, 1)
        moments = note.of(need, Moments)
        assert moments.rows == u.shape[1]
        np.testing.assert_allclose(moments.second, (u.transpose(1, 2) @ u).numpy(), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(moments.first, u.sum(1).numpy(), rtol=1e-5, atol=1e-4)
        # What the layer puts out has these second moments too: one statistic serves all layers that read it.
        weight = graph.weights[node.inputs[1] or ""].astype(np.float64)
        w = weight.reshape(groups, weight.shape[0] // groups, -1)
        y = np.einsum("gor,nr->ngo", w, u[0]) if groups == 1 else np.einsum("gor,gnr->ngo", w, u.numpy())
        energy = np.einsum("gor,grs,gos->", w, moments.second, w)
        np.testing.assert_allclose(energy, (y**2).sum(), rtol=1e-5)


def masked_losses(graph: Graph, x: Array, labels: Array, gate: float, unit: int) -> Array:
    """Each example's loss where one unit is multiplied by ``gate`` at every site."""
    coupling = coupling_of(graph)
    weights = dict(graph.weights)
    for slot in coupling.slots:
        if slot.role != "in":
            continue
        scale = np.where(slot.units == unit, gate, 1.0).astype(np.float32)
        w = weights[slot.weight]
        if slot.groups > 1:
            rows = w.shape[0] // slot.groups
            per_row = np.repeat(scale.reshape(slot.groups, -1), rows, axis=0)
            weights[slot.weight] = w * per_row.reshape(*per_row.shape, *(1,) * (w.ndim - 2))
        else:
            shape = [1] * w.ndim
            shape[slot.axis] = len(scale)
            weights[slot.weight] = w * scale.reshape(shape)
    logits = evaluate(graph.rewrite(weights=weights), {"x": x})[0].astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    result: Array = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(x)), labels]
    return result


def test_gates_are_the_derivatives_by_a_gate_on_each_unit() -> None:
    graph, (x,) = network(), data(4)
    labels = np.array([0, 3, 1, 2])
    coupling = coupling_of(graph)
    note = found(sweep(graph, [(x, labels)], [Gates()]))
    assert "labels" in (note.loss or "")
    gates = note.of(Gates(), GateSums)
    step, a = 1e-2, np.zeros((4, coupling.size))
    for unit in np.flatnonzero(~coupling.frozen):
        high, low = (masked_losses(graph, x, labels, 1 + s, unit) for s in (step, -step))
        a[:, unit] = (high - low) / (2 * step)
    live = ~coupling.frozen
    np.testing.assert_allclose(gates.total[live], a.sum(0)[live], rtol=2e-2, atol=2e-3)
    np.testing.assert_allclose(gates.absolute[live], np.abs(a).sum(0)[live], rtol=2e-2, atol=2e-3)
    for domain, products in gates.products.items():
        rows = a[:, (coupling.domain == domain) & live]
        np.testing.assert_allclose(products, rows.T @ rows, rtol=4e-2, atol=2e-3)


def test_weight_gradients_are_torchs() -> None:
    graph, (x,) = network(), data(4)
    labels = np.array([0, 3, 1, 2])
    names = [str(n.inputs[1]) for n in graph.nodes if n.op in ("conv", "linear")]
    note = found(sweep(graph, [(x, labels)], map(WeightGradients, names), batch=2))
    module = to_module(graph)
    F.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(labels)).backward()
    for name in names:
        gradient = module.get_parameter(name).grad
        assert gradient is not None
        np.testing.assert_allclose(note.of(WeightGradients(name), np.ndarray), gradient.numpy(), rtol=1e-4, atol=1e-6)


def flat(graph: Graph, needs: Sequence[Any]) -> list[Array]:
    """All numbers of a note, for comparison."""
    numbers: list[Array] = []
    for need in needs:
        result = found(graph).found[need]
        parts = vars(result).values() if dataclasses.is_dataclass(result) else [result]
        for part in parts:
            if isinstance(part, dict | tuple):
                numbers += part.values() if isinstance(part, dict) else part
            else:
                numbers.append(np.asarray(part, np.float64))
    return numbers


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_how_the_data_are_cut_changes_nothing(cuts: list[int]) -> None:
    """But for the places that moments are drawn at, which is why they take all here."""
    net = Net(1, 3, 6, 6, seed=3)
    graph = Couple()(net.graph(net.head(net.relu(net.conv(net.relu(net.conv("x", 8)), 8)))))
    x = data(sum(cuts), 1)
    needs = all_needs(graph)
    whole = sweep(graph, x, needs)
    edges = np.cumsum([0, *cuts])
    parts = [np.concatenate(x[a:b]) for a, b in itertools.pairwise(edges)]
    for one, other in zip(flat(whole, needs), flat(sweep(graph, parts, needs), needs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_short_last_batch_of_a_fixed_network_does_not_count_twice() -> None:
    graph, x = network(4), data(6, 6)
    note = found(sweep(graph, x, all_needs(graph)))
    assert note.examples == note.of(Gates(), GateSums).examples == 6
    site = read_sites(graph, coupling_of(graph))[0]
    assert len(note.of(Pooled(site), np.ndarray)) == 6


def _worker(rank: int, port: int, results: Any) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    graph = network()
    needs = all_needs(graph)
    results.put((rank, flat(sweep(graph, data(20), needs), needs)))
    dist.destroy_process_group()


def test_two_processes_find_the_same_sums() -> None:
    graph = network()
    needs = all_needs(graph)
    alone = flat(sweep(graph, data(20), needs), needs)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_worker, args=(rank, port, results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    both = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    for _, numbers in both:
        for one, other in zip(alone, numbers, strict=True):
            order = (lambda a: np.sort(a, axis=0)) if one.ndim == 2 and len(one) == 20 else (lambda a: a)
            np.testing.assert_allclose(order(one), order(other), rtol=1e-9, atol=1e-9)


def test_a_sweep_is_deterministic() -> None:
    graph = network()
    needs = [InputMoments(site, positions=3) for site in consumers(graph, coupling_of(graph))]
    one, two, other = (flat(sweep(graph, data(8), needs, seed=s), needs) for s in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_memory_is_known_before() -> None:
    graph = network()
    of = sizes(graph, coupling_of(graph), examples=20)
    held = {need: need_bytes(need, of) for need in all_needs(graph)}
    for need, result in found(sweep(graph, data(20), held)).found.items():
        parts = vars(result).values() if dataclasses.is_dataclass(result) else [result]
        arrays = [a for p in parts for a in (p.values() if isinstance(p, dict) else p if isinstance(p, tuple) else [p])]
        real = sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))
        assert real <= held[need] * 1.6 + 64, need


def test_second_moments_in_strips_are_whole_and_symmetric(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, needs = network(), [n for n in all_needs(network()) if isinstance(n, InputMoments)]
    whole = found(sweep(graph, data(8), needs)).found
    monkeypatch.setattr("secateur.passes.sweep.needs.STRIP", 5)
    for need, result in found(sweep(graph, data(8), needs)).found.items():
        np.testing.assert_allclose(result.second, whole[need].second, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(result.second, result.second.transpose(0, 2, 1))


@pytest.mark.parametrize("size", [(9, 7), (5, 12)])
def test_data_may_have_another_size_than_the_graph(size: tuple[int, int]) -> None:
    """The network is captured at 8 x 8 with open sizes; what a layer gives follows the data."""
    layer = nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))
    graph = secateur.trace(nn.Sequential(layer, nn.ReLU()).eval(), torch.zeros(1, 3, 8, 8))
    conv = next(n for n in graph.nodes if n.op == "conv")
    x = torch.randn(2, 3, *size)
    want = layer(x).detach()
    there = extent(x, conv, (3, 2), 1)
    assert there == want.shape[2:]
    rows = windows(x, conv, (3, 2), 1, draw_places(there, 10**6, np.random.default_rng(0)))
    found = rows @ layer.weight.detach().reshape(4, -1).T + layer.bias.detach()
    torch.testing.assert_close(found.reshape(2, -1, 4).movedim(2, 1).reshape(want.shape), want)
