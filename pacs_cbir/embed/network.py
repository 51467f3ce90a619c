"""The network: ResNet18, a small lesion head, and an embedding made of named parts.

What makes two slices look alike is said apart, so that each part can be weighed, shown and measured by itself:

- `appearance`: a linear projection of ResNet18's pooled features (He et al. 2016), those inside the lesion beside those
  of the whole picture where there is a lesion head;
- `lesion`: where it is and how large, as a soft mask on a coarse grid;
- `shape`: the drawn lesion's generic Fourier descriptors (Zhang & Lu 2002), in the feature space of their Laplacian
  kernel, shorter where no lesion is sure;
- `grey`: the square root of the grey-level histogram, so that a product is Bhattacharyya's coefficient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.parts import NO_LESION

FOREGROUND = 0.05
"""Grey levels above this are of the head; the same as in the measure of relevance."""
WHITE_MEDIANS = 3.0
"""The network sees grey levels as multiples of the foreground's median, 1 at so many medians, whatever the scanner."""
MEAN, DEVIATION = 0.2, 0.25
"""Of such pictures, roughly."""
RADIAL_FREQUENCIES, ANGULAR_FREQUENCIES = 5, 9
DESCRIPTORS = RADIAL_FREQUENCIES * ANGULAR_FREQUENCIES
CENTRE_RADIUS = 1e-3
"""Pixels; nearer to the centroid than this, with the rounding of float32, is at it."""
SHAPE_STEP = 2
"""Pixels of a drawn mask along an edge that make one: finer, descriptors would cost a tenth of ResNet18."""
MEDIAN_STEP = 2
"""Every so many rows and columns are enough for a median."""
KERNEL_WIDTH = 2.4
"""City-block distance of descriptors at which shapes are alike by 1/e: the usual largest distance between gliomas."""
CHANNELS = (64, 128, 256, 512)
HEAD_CHANNELS, FINE_CHANNELS = 64, 16


class Outputs(NamedTuple):
    """What the network says of n slices of edge `size`.

    Attributes:
        embedding: (n, dimension), of length 1.
        levels: ResNet18's four feature maps, from (n, 64, size / 4, size / 4) to (n, 512, size / 32, size / 32), and
            the lesion head's pyramid, (n, 64, size / 4, size / 4), where there is one.
        lesion: (n, 1, size / 2, size / 2), logits of the lesion's mask; None without a lesion head.
    """

    embedding: torch.Tensor
    levels: tuple[torch.Tensor, ...]
    lesion: torch.Tensor | None


class Trunk(nn.Module):
    """ResNet18 for one grey channel, without its classifier; parameters have torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        network = resnet18(weights=None)
        self.conv1 = nn.Conv2d(1, CHANNELS[0], kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1, self.relu, self.maxpool = network.bn1, network.relu, network.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            network.layer1,
            network.layer2,
            network.layer3,
            network.layer4,
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(n, 1, s, s) → what the stem gives, (n, 64, s/2, s/2), and the four levels, from (n, 64, s/4, s/4) on."""
        stem = self.relu(self.bn1(self.conv1(images)))
        level1 = self.layer1(self.maxpool(stem))
        level2 = self.layer2(level1)
        level3 = self.layer3(level2)
        return stem, level1, level2, level3, self.layer4(level3)


class LesionHead(nn.Module):
    """A feature pyramid (Lin et al. 2017) over ResNet18's levels, refined once at half the picture's resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, HEAD_CHANNELS, 1) for channels in CHANNELS)
        self.mix = _convolution(HEAD_CHANNELS)
        self.coarse = nn.Conv2d(HEAD_CHANNELS, 1, 1)
        self.stem, self.raised = nn.Conv2d(CHANNELS[0], FINE_CHANNELS, 1), nn.Conv2d(HEAD_CHANNELS, FINE_CHANNELS, 1)
        self.refine = _convolution(FINE_CHANNELS)
        self.fine = nn.Conv2d(FINE_CHANNELS, 1, 1)

    def forward(self, stem: torch.Tensor, levels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """ResNet18's stem (n, 64, s/2, s/2) and levels, finest first → pyramid (n, 64, s/4, s/4), logits."""
        pyramid = self.lateral[-1](levels[-1])
        for lateral, level in zip(self.lateral[-2::-1], levels[-2::-1], strict=True):
            pyramid = lateral(level).add_(functional.interpolate(pyramid, size=level.shape[-2:], mode="bilinear"))
        pyramid = self.mix(pyramid)
        refined = self.refine(self.stem(stem).add_(_doubled(self.raised(pyramid))))
        return pyramid, self.fine(refined) + _doubled(self.coarse(pyramid))


class Network(nn.Module):
    """Slices (n, 1, size, size) in [0, 1] as `draw_slices` gives them → `Outputs`."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.trunk: nn.Module = Trunk()
        self.head = LesionHead() if architecture.lesion_grid else None
        self.features = CHANNELS[-1] + (0 if self.head is None else CHANNELS[-2] + HEAD_CHANNELS)
        self.appearance = nn.Linear(self.features, architecture.appearance) if architecture.appearance else None
        landmarks = architecture.shape_landmarks
        self.landmarks: torch.Tensor
        self.whitening: torch.Tensor
        self.register_buffer("landmarks", torch.rand(landmarks, DESCRIPTORS))
        self.register_buffer("whitening", torch.eye(landmarks))

    def forward(self, images: torch.Tensor, shown: torch.Tensor | None = None) -> Outputs:
        """See `Outputs`.

        Args:
            shown: (n, 1, size, size), how much of each pixel all parts but the grey levels are about, 0 to 1.
        """
        stem, *levels = self.trunk(_by_median(images if shown is None else images * shown))
        mask, lesion = None, None
        parts: dict[str, torch.Tensor] = {}
        if self.head is not None:
            pyramid, lesion = self.head(stem, levels)
            levels.append(pyramid)
            mask = lesion.float().sigmoid()
            if shown is not None:
                mask = mask * functional.avg_pool2d(shown, 2)
            parts["lesion"] = lesion_part(mask, self.architecture.lesion_grid)
            if self.architecture.shape_landmarks:
                parts["shape"] = self.shape_part(functional.avg_pool2d(mask, SHAPE_STEP))
        if self.appearance is not None:
            appearance = self.appearance(pooled_features(levels, mask))
            parts["appearance"] = functional.normalize(appearance.float(), dim=1)
        if self.architecture.grey_levels:
            parts["grey"] = grey_part(images.float(), self.architecture.grey_levels)
        weights = self.architecture.shares
        embedding = torch.cat([parts[name] * weights[name] ** 0.5 for name in self.architecture.sizes], dim=1)
        return Outputs(embedding, tuple(levels), lesion)

    def shape_features(self, masks: torch.Tensor) -> torch.Tensor:
        """Masks (n, 1, h, w) → unit vectors (n, shape_landmarks), whose products are about the kernel."""
        kernel = (-torch.cdist(fourier_descriptors(masks), self.landmarks, p=1) / KERNEL_WIDTH).exp()
        return functional.normalize(kernel @ self.whitening, dim=1)

    def shape_part(self, masks: torch.Tensor) -> torch.Tensor:
        """Soft masks (n, 1, h, w) → unit vectors (n, shape_landmarks + 1): features, and last that none is sure."""
        return _completed(self.shape_features(masks) * masks.amax(dim=(2, 3)))

    def fit_shapes(self, descriptors: torch.Tensor) -> None:
        """Take the kernel's landmarks (k, DESCRIPTORS) for the feature space (Nyström; Williams & Seeger 2001)."""
        kernel = (-torch.cdist(descriptors.double(), descriptors.double(), p=1) / KERNEL_WIDTH).exp()
        values, vectors = torch.linalg.eigh(kernel)
        whitening = vectors @ (values.clamp(min=1e-6) ** -0.5).diag() @ vectors.T
        self.landmarks.copy_(descriptors)
        self.whitening.copy_(whitening)


def pooled_features(levels: Sequence[torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
    """What `appearance` is a projection of, (n, features): linear in the levels, for a given mask.

    Args:
        levels: as `Outputs` has them.
        mask: soft, (n, 1, h, w); None without a lesion head.
    """
    _, _, third, last = levels[:4]
    features = last.mean(dim=(2, 3))
    return features if mask is None else torch.cat([features, _inside(third, mask), _inside(levels[4], mask)], dim=1)


def lesion_part(mask: torch.Tensor, grid: int) -> torch.Tensor:
    """Soft masks (n, 1, h, w) → unit vectors (n, grid² + 1): share of each cell, and last that there is none."""
    cells = functional.adaptive_avg_pool2d(mask, grid).flatten(1)
    return functional.normalize(functional.pad(cells, (0, 1), value=NO_LESION), dim=1)


def fourier_descriptors(mask: torch.Tensor) -> torch.Tensor:
    """Generic Fourier descriptors of soft masks (Zhang & Lu 2002), cut at half of their largest value.

    Args:
        mask: (n, 1, h, w) in [0, 1].

    Returns:
        (n, DESCRIPTORS): |PF(0, 0)| / (πR²), then |PF(ρ, φ)| / |PF(0, 0)|, the angular frequency fastest; R is the
        distance of the farthest pixel from the centroid. An empty mask gives zeros.
    """
    n, _, height, width = mask.shape
    cut = (mask >= mask.amax(dim=(2, 3), keepdim=True) / 2) & (mask > 0)
    inside = cut.flatten(1).float()  # (n, h * w)
    y, x = torch.meshgrid(
        torch.arange(height, device=mask.device), torch.arange(width, device=mask.device), indexing="ij"
    )
    places = torch.stack([y.flatten(), x.flatten()], dim=1).float()  # (h * w, 2)
    area = inside.sum(dim=1)
    centre = inside @ places / area.clamp(min=1)[:, None]
    away = places - centre[:, None]  # (n, h * w, 2)
    radius = away.square().sum(dim=2).sqrt()
    farthest = (radius * inside).amax(dim=1).clamp(min=0.5)
    angle = torch.atan2(away[..., 0], away[..., 1])
    outward = inside[:, None] * _waves(2 * torch.pi * radius / farthest[:, None], RADIAL_FREQUENCIES)  # (n, 5, h * w)
    around = _waves(angle, ANGULAR_FREQUENCIES)  # (n, 9, h * w)
    # The pixel at the centroid lies in every direction, and so in none.
    around[:, 1:] *= (radius > CENTRE_RADIUS)[:, None]
    spectrum = (outward @ around.transpose(1, 2)).abs().flatten(1)
    descriptors = spectrum / area.clamp(min=1)[:, None]
    descriptors[:, 0] = area / (torch.pi * farthest**2)
    return descriptors.reshape(n, DESCRIPTORS)


def _waves(phase: torch.Tensor, frequencies: int) -> torch.Tensor:
    """Angles (n, k) → exp(-i f angle) for the frequencies f = 0, 1, …: (n, frequencies, k)."""
    # As powers: a product is a tenth of a sine's cost.
    once = torch.polar(torch.ones_like(phase), -phase)
    powers = [torch.ones_like(once), once]
    while len(powers) < frequencies:
        powers.append(powers[-1] * once)
    return torch.stack(powers, dim=1)


def grey_part(images: torch.Tensor, levels: int) -> torch.Tensor:
    """Square roots of the foreground's histograms: (n, 1, h, w) in [0, 1] → unit vectors (n, levels)."""
    pixels = images.flatten(1)
    bins = (pixels * levels).long().clamp(0, levels - 1)
    counts = torch.zeros(len(images), levels, device=images.device)
    counts.scatter_add_(1, bins, (pixels > FOREGROUND).float())
    return functional.normalize(counts.sqrt(), dim=1)


def build_network(architecture: Architecture) -> Network:
    """A network with random weights."""
    return Network(architecture)


def _convolution(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    )


def _doubled(image: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(image, scale_factor=2, mode="bilinear")


def _completed(expected: torch.Tensor) -> torch.Tensor:
    """Vectors (n, k) of length 1 or less → unit vectors (n, k + 1): what is missing, last."""
    length = expected.norm(dim=1, keepdim=True)
    expected = expected / length.clamp(min=1)
    # Not quite 0: a square root has no slope there.
    missing = (1 - expected.square().sum(dim=1, keepdim=True)).clamp(min=1e-8).sqrt()
    return functional.normalize(torch.cat([expected, missing], dim=1), dim=1)


def _inside(level: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of a level's features (n, c, h, w) where the lesion is → (n, c)."""
    weight = functional.adaptive_avg_pool2d(mask, (level.shape[2], level.shape[3])).to(level.dtype)
    # As a product of matrices: nothing as large as the level is written. Channels come last in memory.
    total = (weight.flatten(2) @ level.permute(0, 2, 3, 1).flatten(1, 2))[:, 0]
    return total / weight.sum(dim=(2, 3)).clamp(min=1e-3)


def _by_median(images: torch.Tensor) -> torch.Tensor:
    """Grey levels as multiples of the foreground's median in each picture, centred for the network."""
    pixels = images[:, :, ::MEDIAN_STEP, ::MEDIAN_STEP].flatten(1)
    median = torch.where(pixels > FOREGROUND / 2, pixels, torch.nan).nanmedian(dim=1).values.nan_to_num(1.0)
    shown = (images / (WHITE_MEDIANS * median.clamp(min=FOREGROUND / 2)[:, None, None, None])).clamp(0, 2)
    return (shown - MEAN) / DEVIATION
