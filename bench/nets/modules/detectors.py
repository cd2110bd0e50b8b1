"""Detectors and segmenters: necks, shared heads, regions, suppression, masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kind import Arguments, Kind, normal, stem


class Backbone(nn.Module):
    """Three levels of features."""

    def __init__(self, widths: tuple[int, int, int] = (16, 24, 32)) -> None:
        super().__init__()
        a, b, c = widths
        self.levels = nn.ModuleList([stem(a, 3, 2), stem(b, a, 2), stem(c, b, 2)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Finest first."""
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found


class Pyramid(nn.Module):
    """Lateral 1x1, the coarser added after resizing; a second way from fine to coarse where asked (FPN, PAN)."""

    def __init__(self, widths: tuple[int, ...], width: int, back: bool = False) -> None:
        super().__init__()
        self.side = nn.ModuleList(nn.Conv2d(w, width, 1) for w in widths)
        self.out = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in widths)
        self.back = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in widths[1:]) if back else None

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """As many levels, of one width."""
        found = [side(x) for side, x in zip(self.side, levels, strict=True)]
        for i in range(len(found) - 2, -1, -1):
            found[i] = found[i] + F.interpolate(found[i + 1], size=found[i].shape[2:])
        found = [out(x) for out, x in zip(self.out, found, strict=True)]
        for i, down in enumerate(self.back or ()):
            found[i + 1] = found[i + 1] + down(found[i])
        return found


class SharedHead(nn.Module):
    """One head for all levels with a scale for each; a dictionary of lists comes out (FCOS)."""

    def __init__(self, back: bool = False) -> None:
        super().__init__()
        self.body, self.neck = Backbone(), Pyramid((16, 24, 32), 24, back)
        self.tower = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.GroupNorm(4, 24), nn.ReLU())
        self.kinds, self.boxes = nn.Conv2d(24, 6, 3, 1, 1), nn.Conv2d(24, 4, 3, 1, 1)
        self.scales = nn.ParameterList(nn.Parameter(torch.tensor(1.0 + i)) for i in range(3))

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        """Scores and boxes by level."""
        towers = [self.tower(level) for level in self.neck(self.body(x))]
        boxes = [F.softplus(self.boxes(t) * s) for t, s in zip(towers, self.scales, strict=True)]
        return {"scores": [self.kinds(t) for t in towers], "boxes": boxes}


class Split(nn.Module):
    """A convolution cut in two, blocks on one half, all joined (C2f)."""

    def __init__(self, inputs: int, outputs: int, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.first, self.last = nn.Conv2d(inputs, outputs, 1), nn.Conv2d(4 * half, outputs, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(half, half, 3, 1, 1) for _ in range(2))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Any:
        """As a list that grows."""
        found = list(F.silu(self.first(x)).chunk(2, 1))
        for block in self.blocks:
            y = F.silu(block(found[-1]))
            found.append(found[-1] + y if self.shortcut else y)
        return self.last(torch.cat(found, 1))


class Spatial(nn.Module):
    """Maxima over growing windows, joined (SPPF)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(width, width // 2, 1), nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Any:
        """Three poolings in a row."""
        found = [self.first(x)]
        found += [y := F.max_pool2d(found[0], 5, 1, 2), z := F.max_pool2d(y, 5, 1, 2), F.max_pool2d(z, 5, 1, 2)]
        return self.last(torch.cat(found, 1))


class Grids(nn.Module):
    """Boxes from distributions over distances and a grid of anchors (YOLOv8's head)."""

    bins: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            stem(16, 3, 2), Split(16, 32, True), stem(32, 32, 2), Spatial(32), Split(32, 32, False)
        )
        self.boxes = nn.Sequential(nn.Conv2d(32, 24, 3, 1, 1), nn.SiLU(), nn.Conv2d(24, 32, 1))
        self.kinds = nn.Sequential(nn.Conv2d(32, 24, 3, 1, 1), nn.SiLU(), nn.Conv2d(24, 5, 1))
        self.register_buffer("bins", torch.arange(8.0))

    def forward(self, x: Tensor) -> Tensor:
        """Boxes and scores of every place."""
        y = self.body(x)
        h, w = y.shape[2:]
        sides = self.boxes(y).view(y.shape[0], 4, 8, h * w).softmax(2)
        sides = (sides * self.bins.view(1, 1, 8, 1)).sum(2)
        ys, xs = torch.meshgrid(torch.arange(h).type_as(x) + 0.5, torch.arange(w).type_as(x) + 0.5, indexing="ij")
        centre = torch.stack([xs, ys]).view(1, 2, -1)
        corners = torch.cat([centre - sides[:, :2], centre + sides[:, 2:]], 1)
        return torch.cat([corners * 4, self.kinds(y).flatten(2).sigmoid()], 1)


class Anchored(nn.Module):
    """Anchors in the channels, learnt factors next to them, a view by anchor (YOLOv7)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(stem(16, 3, 2), stem(32, 16, 2))
        self.add, self.scale = nn.Parameter(torch.randn(1, 32, 1, 1)), nn.Parameter(torch.rand(1, 27, 1, 1))
        self.head = nn.Conv2d(32, 27, 1)

    def forward(self, x: Tensor) -> Any:
        """Boxes by anchor and place."""
        y = self.scale * self.head(self.add + self.body(x))
        n, _, h, w = y.shape
        return y.view(n, 3, 9, h, w).permute(0, 1, 3, 4, 2).contiguous()


class Weighted(nn.Module):
    """Two levels added by learnt shares (BiFPN)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.share = stem(32, 3, 2), stem(32, 32, 2), nn.Parameter(torch.rand(2))
        self.depth, self.point = nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.Conv2d(32, 32, 1)
        self.head = nn.Conv2d(32, 9, 1)

    def forward(self, x: Tensor) -> Any:
        """Scores of the finer level."""
        a = self.a(x)
        share = F.relu(self.share)
        share = share / (share.sum() + 1e-4)
        y = share[0] * a + share[1] * F.interpolate(self.b(a), size=a.shape[2:])
        return self.head(self.point(self.depth(F.silu(y))))


class Regions(nn.Module):
    """Features of given boxes, averaged over a grid, classified."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(stem(24, 3, 2), stem(32, 24, 2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 9, 48), nn.ReLU(), nn.Linear(48, 6))

    def forward(self, x: Tensor, boxes: Tensor) -> Any:
        """Scores of each box of one picture."""
        from torchvision.ops import roi_align

        import bench.data.torchvision_shim  # noqa: F401  for torchvision next to another build of torch

        return self.head(roi_align(self.body(x), [boxes], (3, 3), 0.25))


class Suppressed(nn.Module):
    """Scores and boxes, of which those that overlap with a better one go."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(stem(24, 3, 4), stem(32, 24, 2)), nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        """As many boxes as are left."""
        import bench.data.torchvision_shim  # noqa: F401  for torchvision next to another build of torch

        found = self.head(self.body(x))[0].flatten(1).t()
        corner, size = found[:, :2], found[:, 2:4].exp()
        boxes = torch.cat([corner, corner + size], 1)
        return boxes[torch.ops.torchvision.nms(boxes, found[:, 4], 0.5)]


class Best(nn.Module):
    """The few best places and what stands there (CenterNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.heat, self.size = (
            nn.Sequential(stem(24, 3, 2), stem(32, 24, 2)),
            nn.Conv2d(32, 3, 1),
            nn.Conv2d(32, 2, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and sizes of the best."""
        y = self.body(x)
        heat = self.heat(y).sigmoid()
        heat = heat * (F.max_pool2d(heat, 3, 1, 1) == heat)
        best, index = heat.amax(1).flatten(1).topk(4)
        return best, self.size(y).flatten(2).gather(2, index[:, None].expand(-1, 2, -1))


class Masks(nn.Module):
    """Prototypes combined by coefficients (YOLACT)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(stem(24, 3, 2), stem(32, 24, 2))
        self.shapes = nn.Sequential(
            nn.Conv2d(32, 24, 3, 1, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(24, 8, 1)
        )
        self.shares = nn.Conv2d(32, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A mask for each place."""
        y = self.body(x)
        return torch.einsum("npl,nphw->nlhw", self.shares(y).flatten(2).tanh(), self.shapes(y)).sigmoid()


class Segmenter(nn.Module):
    """Dilated branches and a pooled one, joined; with an auxiliary head in train mode (DeepLab)."""

    def __init__(self, auxiliary: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(stem(24, 3, 2), stem(32, 24, 2))
        self.branches = nn.ModuleList(nn.Conv2d(32, 16, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.pooled, self.join = nn.Conv2d(32, 16, 1), nn.Conv2d(64, 24, 1)
        self.dropout, self.head = nn.Dropout2d(0.1), nn.Conv2d(24, 4, 1)
        self.auxiliary = nn.Conv2d(32, 4, 1) if auxiliary else None

    def forward(self, x: Tensor) -> Any:
        """Scores of each pixel; two of them in train mode with the auxiliary head."""
        y = self.body(x)
        pooled = self.pooled(y.mean((2, 3), keepdim=True)).expand(-1, -1, *y.shape[2:])
        z = torch.cat([*(branch(y) for branch in self.branches), pooled], 1)
        z = F.interpolate(self.head(self.dropout(F.relu(self.join(z)))), size=x.shape[2:], mode="bilinear")
        if self.training and self.auxiliary is not None:
            return z, self.auxiliary(y)
        return z


def _boxes() -> Arguments:
    return torch.randn(1, 3, 32, 32), torch.tensor([[1.0, 2, 20, 25], [5, 5, 12, 30]])


_P, _O = normal((2, 3, 32, 32)), normal((1, 3, 48, 40))

KINDS = (
    Kind("det_shared_head", SharedHead, _P, _O),
    Kind("det_path_aggregation", lambda: SharedHead(True), _P, _O),
    Kind("det_grids", Grids, _P, _O),
    Kind("det_anchored", Anchored, _P, _O),
    Kind("det_weighted", Weighted, _P, _O),
    Kind("det_regions", Regions, _boxes, batch=False),
    Kind("det_suppressed", Suppressed, normal((1, 3, 32, 32)), batch=False,
         expect={"prune": "Compile the network up to there"}),
    Kind("det_best_places", Best, _P, _O),
    Kind("det_masks", Masks, _P, _O),
    Kind("seg_dilated", lambda: Segmenter(False), _P, _O),
    Kind("seg_auxiliary", lambda: Segmenter(True), _P, _O),
)  # fmt: skip
