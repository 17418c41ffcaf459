"""Statistics of columns and images, as LeRobot keeps them: an episode's own, and a dataset's from its episodes'.

Quantiles are the smallest values that at least that part of the values doesn't exceed; a dataset's are its episodes',
weighted by their counts.
Source: lerobot 0.4.4, datasets/compute_stats.py, whose histograms give the same to a 5000th of the range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.types import ImageArray

Statistics = Mapping[str, NDArray[Any]]
"""By name: `min`, `max`, `mean`, `std`, `q01` ... `q99`, each with a column's width or (3, 1, 1), and `count`, (1,)."""

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTICS = ("min", "max", "mean", "std", "count", *QUANTILES)

_LEAST_SAMPLES, _MOST_SAMPLES, _SAMPLES_POWER = 100, 10_000, 0.75
_SMALL_PX, _SAMPLED_PX = 300, 150


def column_statistics(values: NDArray[Any]) -> Statistics | None:
    """Of one column of an episode.

    Args:
        values: (frames, ..., width) numbers or flags. Rows that hold something that isn't finite don't count.

    Returns:
        Over all axes but the last one; None where no row counts.
    """
    rows = values.reshape(len(values), -1)
    is_whole = rows.dtype.kind in "iub"
    valid = values if is_whole else values[np.isfinite(rows).all(axis=1)]
    if len(valid) == 0:
        return None
    flat = valid.reshape(-1, valid.shape[-1] if valid.ndim > 1 else 1)
    exact = flat.astype(np.int64 if is_whole else np.float64)
    numbers = exact.astype(np.float64)
    found: dict[str, NDArray[Any]] = {
        "min": exact.min(axis=0),
        "max": exact.max(axis=0),
        "mean": numbers.mean(axis=0),
        "std": numbers.std(axis=0),
        "count": np.array([len(valid)]),
    }
    quantiles = np.quantile(numbers, list(QUANTILES.values()), axis=0, method="inverted_cdf")
    # Of a single row LeRobot takes the mean, which is the same.
    return {**found, **dict(zip(QUANTILES, quantiles, strict=True))}


def sampled_frames(frames: int) -> NDArray[np.int64]:
    """Which of an episode's images its statistics are taken from."""
    most = max(min(_LEAST_SAMPLES, frames), min(int(frames**_SAMPLES_POWER), _MOST_SAMPLES))
    return np.unique(np.round(np.linspace(0, frames - 1, most)).astype(np.int64))


class ImageStatistics:
    """Statistics of one image column of an episode: exact, from how often each value occurs in each channel."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), dtype=np.int64)
        self._images = 0

    def add(self, image: ImageArray) -> None:
        """Counts a (height, width, 3) image, every few pixels of a large one."""
        height, width = image.shape[:2]
        step = 1 if max(height, width) < _SMALL_PX else max(height, width) // _SAMPLED_PX
        for channel in range(3):
            values = image[::step, ::step, channel].ravel()
            self._counts[channel] += np.bincount(values, minlength=256)
        self._images += 1

    def result(self) -> Statistics | None:
        """Values from 0 to 1, (3, 1, 1); None if there was no image."""
        if self._images == 0:
            return None
        values = np.arange(256) / 255.0
        share = self._counts / self._counts.sum(axis=1, keepdims=True)
        mean = share @ values
        up_to = np.cumsum(self._counts, axis=1)
        found = {
            "min": values[(self._counts > 0).argmax(axis=1)],
            "max": values[255 - (self._counts[:, ::-1] > 0).argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1)),
            **{name: values[(up_to >= part * up_to[:, -1:]).argmax(axis=1)] for name, part in QUANTILES.items()},
        }
        return {**{name: value.reshape(3, 1, 1) for name, value in found.items()}, "count": np.array([self._images])}


def combine(episodes: Iterable[Statistics]) -> Statistics | None:
    """A dataset's statistics of one column; None for no episode."""
    parts = list(episodes)
    if not parts:
        return None
    counts = np.array([part["count"][0] for part in parts], dtype=np.float64)
    weights = counts / counts.sum()

    def weighted(values: list[NDArray[Any]]) -> NDArray[Any]:
        return np.asarray(np.tensordot(weights, np.stack(values), axes=1))

    mean = weighted([part["mean"] for part in parts])
    variance = weighted([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    found = {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(counts.sum())]),
    }
    known = [name for name in QUANTILES if all(name in part for part in parts)]
    return {**found, **{name: weighted([part[name] for part in parts]) for name in known}}
