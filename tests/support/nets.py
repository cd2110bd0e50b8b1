"""Small graphs in text form with drawn weights, for tests that need a network and no frontend."""

from __future__ import annotations

import numpy as np

from secateur.ir import Graph, parse_graph, reinfer

CONV = "dilation=[1,1] groups=1 pad=[1,1,1,1] stride=[1,1]"

CHAIN = f"""graph chain
  in  %x : f32[1, 3, 8, 8]
  %c1 = conv(%x, @c1.w) {CONV} : f32[1, 16, 8, 8]
  %n1 = batch_norm(%c1, @n1.g, @n1.b, @n1.m, @n1.v) eps=1e-05 momentum=0.1 : f32[1, 16, 8, 8]
  %r1 = relu(%n1) : f32[1, 16, 8, 8]
  %c2 = conv(%r1, @c2.w) {CONV} : f32[1, 32, 8, 8]
  %r2 = relu(%c2) : f32[1, 32, 8, 8]
  %p = reduce_mean(%r2) axes=[2,3] keepdims=False : f32[1, 32]
  %fc = linear(%p, @fc.w, @fc.b) transposed=False : f32[1, 5]
  out %fc
weights
  @c1.w f32[16, 3, 3, 3]
  @c2.w f32[32, 16, 3, 3]
  @fc.b f32[5]
  @fc.w f32[5, 32]
  @n1.b f32[16]
  @n1.g f32[16]
  @n1.m f32[16]
  @n1.v f32[16]
"""

RESIDUAL = f"""graph residual
  in  %x : f32[1, 3, 8, 8]
  %a = conv(%x, @a.w) {CONV} : f32[1, 16, 8, 8]
  %b = conv(%a, @b.w) {CONV} : f32[1, 24, 8, 8]
  %br = relu(%b) : f32[1, 24, 8, 8]
  %c = conv(%br, @c.w) {CONV} : f32[1, 16, 8, 8]
  %s = add(%a, %c) : f32[1, 16, 8, 8]
  %g = conv(%s, @g.w) {CONV.replace("groups=1", "groups=4")} : f32[1, 32, 8, 8]
  %gr = relu(%g) : f32[1, 32, 8, 8]
  %y = conv(%gr, @y.w) {CONV} : f32[1, 4, 8, 8]
  out %y
weights
  @a.w f32[16, 3, 3, 3]
  @b.w f32[24, 16, 3, 3]
  @c.w f32[16, 24, 3, 3]
  @g.w f32[32, 4, 3, 3]
  @y.w f32[4, 32, 3, 3]
"""


def draw(text: str, seed: int = 0) -> Graph:
    """The graph with weights drawn from a seed; those named ``*.v`` are variances."""
    graph = parse_graph(text)
    rng = np.random.default_rng(seed)
    weights = {
        name: (rng.uniform(0.5, 2, w.shape) if name.endswith(".v") else rng.standard_normal(w.shape)).astype(w.dtype)
        for name, w in graph.weights.items()
    }
    return reinfer(graph.rewrite(weights=weights))


def chain() -> Graph:
    """conv 3-16, batch norm, relu, conv 16-32, relu, mean, linear 32-5."""
    return draw(CHAIN)


def residual() -> Graph:
    """A residual block of 16 channels, then a convolution in 4 groups, 32 channels."""
    return draw(RESIDUAL)
