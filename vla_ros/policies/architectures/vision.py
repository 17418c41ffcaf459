"""Images to features: a small residual convolution net that an instruction can steer, and keypoints of its maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.policies.architectures.base import Inputs, counted_mean
from vla_ros.policies.architectures.layers import InstructionEncoder
from vla_ros.policies.architectures.spec import ModelSpec

# Channels normalised together.
GROUP = 8


def check_channels(channels: tuple[int, ...]) -> None:
    """Raises ValueError for channels that `ImageEncoder` can't have."""
    if not channels or any(count < GROUP or count % GROUP for count in channels):
        raise ValueError(f"channels {channels}: at least one stage is needed, each a multiple of {GROUP}")


class FilmBlock(nn.Module):
    """Two convolutions with a shortcut, scaled and shifted per channel by a condition, if there is one.

    Source: FiLM, Perez et al. 2017, arXiv 1709.07871, figure 3.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, condition_width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(channels_out // GROUP, channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(channels_out // GROUP, channels_out)
        self.film = nn.Linear(condition_width, 2 * channels_out) if condition_width else None
        is_same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if is_same else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        y = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        if self.film is not None:
            scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
            y = y * (1.0 + scale) + shift
        return F.relu(y + self.shortcut(x))


def map_channels(channels: tuple[int, ...]) -> tuple[int, ...]:
    """Channels of what `ImageEncoder.maps` gives."""
    return (*channels[1:-1], channels[-1])


class Pyramid(nn.Module):
    """Joins maps of an image, each half the size of the one before it, into one of the first one's size.

    What is known of large patches is added, enlarged, to what is known of small ones, so that a thing's place is told
    as exactly as in the finest map, and what it is as well as in the coarsest one.

    Source: Lin et al. 2017, arXiv 1612.03144, section 3.

    Args:
        channels: of the maps.
        width: of the result.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.mix = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        joined = self.sides[-1](maps[-1])
        for side, finer in zip(reversed(self.sides[:-1]), reversed(maps[:-1]), strict=True):
            joined = side(finer) + F.interpolate(joined, size=finer.shape[2:], mode="nearest")
        return joined + F.relu(self.mix(joined))


class ImageEncoder(nn.Module):
    """(B, 3, h, w) in [0, 1] to (B, channels[-1], h', w'); every stage halves the size.

    Args:
        channels: of the stages.
        condition_width: width of the vector that steers it, 0 for none.
        levels: sizes of its maps, the coarsest first, that are joined; with each the result is twice as fine.
    """

    def __init__(self, channels: tuple[int, ...], condition_width: int, levels: int = 1) -> None:
        super().__init__()
        self.levels = levels
        self.stem = nn.Conv2d(3, channels[0], 5, 2, 2)
        pairs = zip(channels, (*channels[1:], channels[-1]), strict=True)
        # The last block keeps the size, so that even a single stage has one.
        strides = [2] * (len(channels) - 1) + [1]
        self.blocks = nn.ModuleList(
            FilmBlock(before, after, stride, condition_width)
            for (before, after), stride in zip(pairs, strides, strict=True)
        )
        self.pyramid = Pyramid(map_channels(channels)[-levels:], channels[-1]) if levels > 1 else None

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        maps = self.maps(image, condition)
        return maps[-1] if self.pyramid is None else self.pyramid(maps[-self.levels :])

    def maps(self, image: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """(B, channels, h, w) of every size on the way, each half of the one before it."""
        # Channels last is what convolutions on a CPU are fast with.
        x = F.relu(self.stem((2.0 * image - 1.0).contiguous(memory_format=torch.channels_last)))
        found: list[Tensor] = []
        for block in self.blocks:
            x = block(x, condition)
            if found and found[-1].shape[2:] == x.shape[2:]:
                found.pop()
            found.append(x)
        return found


def cell_centres(height: int, width: int, like: Tensor) -> Tensor:
    """(height, width, 2) centres x, y of a grid's cells over an image from (0, 0) to (1, 1)."""
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def soft_argmax(logits: Tensor) -> Tensor:
    """(..., h, w) to the expected position (..., 2) under the softmax over the grid.

    Source: Levine et al. 2016, arXiv 1504.00702, section 5.1.
    """
    centres = cell_centres(logits.shape[-2], logits.shape[-1], logits)
    return logits.flatten(-2).softmax(-1) @ centres.flatten(0, 1)


def bilinear_targets(xy: Tensor, height: int, width: int) -> Tensor:
    """Positions (..., 2) in [0, 1] to distributions over a grid (..., height, width).

    The four cells whose centres are nearest share a position bilinearly, so that the mean of the centres under the
    distribution is the position; outside of the outermost centres it is moved onto them.
    """
    size = xy.new_tensor([width, height])
    place = (xy * size - 0.5).clamp(min=0.0).minimum(size - 1.0)
    weight_x = (1.0 - (place[..., :1] - torch.arange(width, device=xy.device)).abs()).clamp(min=0.0)
    weight_y = (1.0 - (place[..., 1:] - torch.arange(height, device=xy.device)).abs()).clamp(min=0.0)
    return weight_y[..., :, None] * weight_x[..., None, :]


def localisation_loss(logits: Tensor, xy: Tensor, is_visible: Tensor | None) -> Tensor:
    """How badly a grid of logits says where something is in the image.

    Cross-entropy against bilinear soft targets plus the L1 distance of the soft argmax, averaged over what is visible.

    Args:
        logits: (..., h, w).
        xy: (..., 2) in [0, 1]; anything where it isn't visible.
        is_visible: (...) bool, None if all are.
    """
    height, width = logits.shape[-2:]
    if is_visible is not None:
        xy = torch.where(is_visible[..., None], xy, 0.5)
    targets = bilinear_targets(xy, height, width)
    cross_entropy = -(targets.flatten(-2) * logits.flatten(-2).log_softmax(-1)).sum(-1)
    centres = cell_centres(height, width, xy)
    reachable = xy.maximum(centres[0, 0]).minimum(centres[-1, -1])
    distance = (soft_argmax(logits) - reachable).abs().sum(-1)
    return counted_mean(cross_entropy + distance, is_visible)


class SceneEncoder(nn.Module):
    """Images, state and instruction to one vector (B, width), by keypoints (soft argmax) of every camera.

    Args:
        spec: of the network.
        channels: of every camera's `ImageEncoder`.
        keypoints: per camera.
        width: of the vector.
        heads: of the instruction's attention.
    """

    def __init__(self, spec: ModelSpec, channels: tuple[int, ...], keypoints: int, width: int, heads: int) -> None:
        super().__init__()
        self.instruction = InstructionEncoder(spec, width, heads) if spec.takes_language else None
        condition_width = width if spec.takes_language else 0
        self.cameras = nn.ModuleList(ImageEncoder(channels, condition_width) for _ in spec.images)
        # Its bias would move all cells alike, which a softmax doesn't see.
        self.keypoints = nn.ModuleList(nn.Conv2d(channels[-1], keypoints, 1, bias=False) for _ in spec.images)
        features = 2 * keypoints * len(spec.images) + spec.state_width + condition_width
        self.output = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, inputs: Inputs) -> Tensor:
        condition = None if self.instruction is None else self.instruction(inputs.words)
        features = [inputs.state] if condition is None else [inputs.state, condition]
        for i, (camera, keypoints) in enumerate(zip(self.cameras, self.keypoints, strict=True)):
            points = soft_argmax(keypoints(camera(inputs.images[:, i], condition)))
            features.append(2.0 * points.flatten(1) - 1.0)
        return self.output(torch.cat(features, dim=1))
