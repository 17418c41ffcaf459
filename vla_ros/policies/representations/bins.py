"""Actions as one token a dimension: uniform bins as in RT-1 and RT-2, and OpenVLA's ids at the end of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_ros.errors import ChunkError
from vla_ros.types import FloatArray

IntArray = NDArray[np.int64]

BIN_COUNT = 256


@dataclass(frozen=True)
class UniformBins:
    """Bins of equal width over each dimension's range; an action is read back as the centre of its bin.

    A bin holds its lower edge; the last one holds the upper bound, too. What lies outside the bounds goes into the
    outermost bins.

    Attributes:
        lower: (d,) lower bounds.
        upper: (d,) upper bounds, each above its lower one.
        count: bins a dimension.

    Source: Brohan et al., "RT-1", arXiv 2212.06817, section 5.1; Zitkovich et al., "RT-2", arXiv 2307.15818, 3.2.
    """

    lower: Sequence[float]
    upper: Sequence[float]
    count: int = BIN_COUNT

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"{self.count} bins hold nothing")
        if len(self.lower) != len(self.upper) or not all(
            np.isfinite(a) and np.isfinite(b) and a < b for a, b in zip(self.lower, self.upper, strict=True)
        ):
            raise ValueError(
                f"bounds {list(self.lower)} and {list(self.upper)}: each lower must be below its upper one"
            )

    @property
    def edges(self) -> FloatArray:
        """(d, count + 1) the bins' edges."""
        return np.linspace(
            np.asarray(self.lower, np.float64), np.asarray(self.upper, np.float64), self.count + 1, axis=-1
        )

    def encode(self, actions: ArrayLike) -> IntArray:
        """(..., d) actions to (..., d) bins in [0, count).

        Raises:
            ChunkError: for a wrong width or what isn't finite.
        """
        values = _check_finite(actions)
        self._check_width(values.shape)
        edges = self.edges
        columns = [np.searchsorted(edges[i], values[..., i], side="right") - 1 for i in range(len(edges))]
        return np.clip(np.stack(columns, axis=-1), 0, self.count - 1).astype(np.int64)

    def decode(self, ids: ArrayLike) -> FloatArray:
        """(..., d) bins to the (..., d) centres of them.

        Raises:
            ChunkError: for a wrong width, or ids that are no bin.
        """
        bins = _check_ids(ids, 0, self.count - 1)
        self._check_width(bins.shape)
        lower, upper = np.asarray(self.lower, np.float64), np.asarray(self.upper, np.float64)
        return lower + (bins + 0.5) * ((upper - lower) / self.count)

    def _check_width(self, shape: tuple[int, ...]) -> None:
        width = len(self.lower)
        if not shape or shape[-1] != width:
            raise ChunkError(f"actions or tokens of shape {shape}: these bins are for {width} dimensions")


@dataclass(frozen=True)
class VocabularyBins:
    """OpenVLA's action tokens: the last 256 ids of a vocabulary stand for actions in [-1, 1].

    256 edges have 255 bins between them. Only an action of exactly 1 (or clipped to it) gets the lowest id, and is read
    back as the centre of the last bin.

    Attributes:
        vocabulary_size: of the language model, without padding; 32000 for Llama 2.

    Source: Kim et al., "OpenVLA", arXiv 2406.09246, section 3.2, and its `ActionTokenizer` and `predict_action`.
    """

    vocabulary_size: int = 32000

    def __post_init__(self) -> None:
        if self.vocabulary_size < BIN_COUNT:
            raise ValueError(f"a vocabulary of {self.vocabulary_size} ids has no {BIN_COUNT} for actions")

    @property
    def first_id(self) -> int:
        """The lowest id that is an action."""
        return self.vocabulary_size - BIN_COUNT

    @property
    def edges(self) -> FloatArray:
        """(256,) the bins' edges."""
        return np.linspace(-1.0, 1.0, BIN_COUNT)

    def encode(self, actions: ArrayLike) -> IntArray:
        """Normalised actions of any shape to ids.

        Raises:
            ChunkError: for what isn't finite.
        """
        values = _check_finite(actions)
        return np.asarray(self.vocabulary_size - np.digitize(np.clip(values, -1.0, 1.0), self.edges), dtype=np.int64)

    def decode(self, ids: ArrayLike) -> FloatArray:
        """Ids of any shape to normalised actions, each the centre of its bin.

        Raises:
            ChunkError: for ids that are no action: what a model says beside them isn't motion.
        """
        tokens = _check_ids(ids, self.first_id, self.vocabulary_size - 1)
        edges = self.edges
        centres = 0.5 * (edges[:-1] + edges[1:])
        return centres[np.clip(self.vocabulary_size - tokens - 1, 0, len(centres) - 1)]


def _check_finite(actions: ArrayLike) -> FloatArray:
    values = np.asarray(actions, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ChunkError(f"actions {values[~np.isfinite(values)][:4].tolist()} aren't finite and have no token")
    return values


def _check_ids(ids: ArrayLike, first: int, last: int) -> IntArray:
    tokens = np.asarray(ids)
    if not np.issubdtype(tokens.dtype, np.integer):
        raise ChunkError(f"tokens of type {tokens.dtype} aren't ids; whole numbers are")
    is_wrong = (tokens < first) | (tokens > last)
    if is_wrong.any():
        raise ChunkError(
            f"tokens {tokens[is_wrong].ravel()[:4].tolist()} are no actions (ids {first} to {last} are); "
            "was the model cut short, or is it another vocabulary?"
        )
    return tokens.astype(np.int64)
