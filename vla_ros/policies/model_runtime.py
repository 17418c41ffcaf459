"""A network as a learned policy calls it: arrays in, an array out, whatever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
PrefixWay = Literal["none", "trained", "guided"]


@dataclass(frozen=True)
class ModelInputs:
    """What a network sees, one observation at a time.

    Attributes:
        images: (1, cameras, 3, h, w) in [0, 1].
        state: (1, state_width) normalised.
        words: (1, max_words) ids, 0 for padding.
    """

    images: Float32Array
    state: Float32Array
    words: NDArray[np.int64]


@dataclass(frozen=True)
class ModelPrefix:
    """How an answer is to begin, because the chunk before it will be executed meanwhile.

    Attributes:
        actions: (1, H, d) normalised; whatever past the steps that are held.
        count: steps that are decided: a network that was trained for it begins with them.
        weights: (H,) how much each step is held to `actions`, 1 to 0: for guidance.
    """

    actions: Float32Array
    count: int
    weights: Float32Array


class ModelRuntime(Protocol):
    """Something that runs a network. Called by one thread at a time."""

    @property
    def name(self) -> str:
        """`torch` or `onnx`."""

    @property
    def prefix_way(self) -> PrefixWay:
        """How an answer is made to continue what is committed: `trained` into the network, `guided` as it samples."""

    def sample(self, inputs: ModelInputs, noise: Float32Array, prefix: ModelPrefix | None) -> Float32Array:
        """Answers (1, H, d) normalised actions, the same for the same arguments.

        Args:
            inputs: what is seen.
            noise: (1, H, d) standard normal.
            prefix: how the answer begins; None for anyhow, and always None where `prefix_way` is `none`.
        """
