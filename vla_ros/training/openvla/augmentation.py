"""OpenVLA's variation of images in fine-tuning: a part of them, and other light and colours.

Source: OpenVLA's `finetune.py` and `RLDSDataset` (image_aug), whose formulas are TensorFlow's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vla_ros.policies.openvla.preprocessing import crop_area
from vla_ros.types import ImageArray


@dataclass(frozen=True)
class ImageVariation:
    """How much images vary. The policy must be shown the middle `area` of its images then (`centre_area`).

    Attributes:
        area: part of the image's area that is shown, anywhere in it; 1 for all of it.
        brightness: at most so much is added, of 1.
        contrast: differences to the mean are multiplied by 1 - contrast to 1 + contrast.
        saturation: likewise.
        hue: the colour circle is turned by at most this part of it.
    """

    area: float = 0.9
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.area <= 1.0:
            raise ValueError(f"area {self.area} isn't in (0, 1]")
        for name in ("brightness", "contrast", "saturation", "hue"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} {getattr(self, name)} isn't in [0, 1)")

    def __call__(self, image: ImageArray, rng: np.random.Generator) -> ImageArray:
        """(h, w, 3) uint8 rgb, varied; of the same size."""
        place = (rng.uniform(), rng.uniform())
        brightness, contrast, saturation, hue = rng.uniform(-1.0, 1.0, 4)
        cut = crop_area(image, self.area, place) if self.area < 1.0 else image
        values = cut.astype(np.float32) / np.float32(255) + np.float32(self.brightness * brightness)
        mean = values.mean(axis=(0, 1))
        values = np.clip((values - mean) * np.float32(1.0 + self.contrast * contrast) + mean, 0.0, 1.0)
        hsv = cv2.cvtColor(values, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = np.mod(hsv[..., 0] + np.float32(360.0 * self.hue * hue), 360.0)
        hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(1.0 + self.saturation * saturation), 0.0, 1.0)
        values = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        return np.round(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)


NO_VARIATION = ImageVariation(area=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
