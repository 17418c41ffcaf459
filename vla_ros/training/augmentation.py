"""Images changed at random in ways that leave the task what it is.

A random shift fills the border with the image's own edge; what a policy sees at work is the image not shifted, the
middle of what it was trained on. Colours change by one affine map of rgb an image: brightness, contrast, saturation and
a turn of the hue that is small enough for red to stay red.
Source: Kostrikov et al., "Image Augmentation Is All You Need" (arXiv 2004.13649), for the shift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Past it a yellow thing could be called green, and a purple one blue.
MOST_HUE_RAD = 0.15
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augmentation:
    """How much images are changed, each drawn evenly on its own.

    Attributes:
        shift: at most so much of the width and height, in each direction.
        brightness: factor from 1 - this to 1 + this.
        contrast: likewise, about the image's mean grey.
        saturation: likewise, about each pixel's grey.
        hue_rad: turn about the grey axis, either way.
    """

    shift: float = 0.04
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue_rad: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 <= self.shift <= 0.25:
            raise ValueError(f"shift {self.shift} isn't in [0, 0.25] of the image")
        for name in ("brightness", "contrast", "saturation"):
            if not 0.0 <= getattr(self, name) <= 0.8:
                raise ValueError(f"{name} {getattr(self, name)} isn't in [0, 0.8]")
        if not 0.0 <= self.hue_rad <= MOST_HUE_RAD:
            raise ValueError(f"hue_rad {self.hue_rad} isn't in [0, {MOST_HUE_RAD}]: colours wouldn't keep their names")


NO_AUGMENTATION = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0)


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Changes every image on its own.

    Args:
        images: (n, 3, h, w) uint8.
        augmentation: how much.
        generator: on the CPU; settles everything.

    Returns:
        (n, 3, h, w) float32 in [0, 1], and (n, 2) by how much what an image shows was moved right and down, as part of
        its width and height.
    """
    moved, shift = _shift(images, augmentation, generator)
    values = moved.to(torch.float32) * (1.0 / 255.0)
    if augmentation.brightness or augmentation.contrast or augmentation.saturation or augmentation.hue_rad:
        values = _recolour(values, augmentation, generator)
    return values, shift


def _shift(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count, _, height, width = images.shape
    reach = [math.floor(augmentation.shift * size) for size in (height, width)]
    if not any(reach):
        return images, torch.zeros(count, 2)
    down, right = (torch.randint(-most, most + 1, (count,), generator=generator) for most in reach)
    y, x = reach
    padded = images.new_empty(count, 3, height + 2 * y, width + 2 * x)
    padded[:, :, y : y + height, x : x + width] = images
    padded[:, :, y : y + height, :x], padded[:, :, y : y + height, x + width :] = images[..., :1], images[..., -1:]
    padded[:, :, :y], padded[:, :, y + height :] = padded[:, :, y : y + 1], padded[:, :, y + height - 1 : y + height]
    moved = torch.empty_like(images)
    for index, (dy, dx) in enumerate(zip(down.tolist(), right.tolist(), strict=True)):
        moved[index] = padded[index, :, y - dy : y - dy + height, x - dx : x - dx + width]
    return moved, torch.stack([right / width, down / height], dim=1)


def _recolour(values: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    count, _, height, width = values.shape
    most = torch.tensor([augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue_rad])
    drawn = (2.0 * torch.rand(count, 4, generator=generator) - 1.0) * most
    brightness, contrast, saturation = (1.0 + drawn[:, :3]).unbind(dim=1)
    luma = torch.tensor(_LUMA)
    greys = torch.ones(3, 1) @ luma[None]
    turns = _about_grey(drawn[:, 3])
    # Saturation scales what differs from each pixel's grey.
    colours = greys + saturation[:, None, None] * (torch.eye(3) - greys)
    matrix = (brightness * contrast)[:, None, None] * (colours @ turns)
    # A sparse look tells the mean brightness well enough, and costs little.
    means = values[:, :, ::4, ::4].mean(dim=(2, 3)) @ luma
    offset = (brightness * (1.0 - contrast) * means)[:, None, None].expand(count, 3, 1)
    changed = torch.baddbmm(offset, matrix, values.reshape(count, 3, height * width))
    return changed.clamp_(0.0, 1.0).reshape(count, 3, height, width)


def _about_grey(angles_rad: Tensor) -> Tensor:
    """(n, 3, 3) rotations of rgb about the axis (1, 1, 1), after Rodrigues."""
    k = 1.0 / math.sqrt(3.0)
    skew = torch.tensor([[0.0, -k, k], [k, 0.0, -k], [-k, k, 0.0]])
    sine, cosine = angles_rad.sin()[:, None, None], angles_rad.cos()[:, None, None]
    return torch.eye(3) + sine * skew + (1.0 - cosine) * (skew @ skew)
