"""Statistics of a policy's vectors and the formulas that normalise with them, for NumPy arrays and torch tensors.

With e the contract's epsilon:

    mean_std:  y = (x - mean) / (std + e)
    min_max:   y = 2 (x - minimum) / (maximum - minimum + e) - 1
    quantile:  y = 2 (x - q01) / (q99 - q01 + e) - 1

and x from y by the same formula solved for x. Entries that the mask leaves out pass through. An entry whose statistics
have no spread (it never changed in the data) normalises to 0 and unnormalises to its one value, whatever the policy
says.

Source: OpenVLA's `normalize_action_and_proprio` and `predict_action` (quantiles, masks, entries without spread; its
1e-8 when normalising is an epsilon), openpi's `transforms.py` (its 1e-6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.contract import NormalisationSpec, canonical_hash
from vla_ros.errors import ContractError
from vla_ros.geometry.arrays import Array, as_like, with_namespace
from vla_ros.types import FloatArray

BoolArray = NDArray[np.bool_]

# Spread below which an entry counts as constant, of its own size or of one: what float32 leaves of a difference.
_LEAST_SPREAD = 1e-9
_NUMBERS = ("mean", "std", "minimum", "maximum", "q01", "q99")
# How OpenVLA's dataset_statistics.json and openpi's norm_stats.json call them.
_FOREIGN_NAMES = {"min": "minimum", "max": "maximum", "num_transitions": "count"}


@dataclass(frozen=True)
class Statistics:
    """Statistics of one vector over a dataset; what a formula doesn't need may be missing.

    Attributes:
        mean: (d,).
        std: (d,) standard deviation, of the whole dataset and not of a sample of it.
        minimum: (d,).
        maximum: (d,).
        q01: (d,) first percentile.
        q99: (d,) 99th percentile.
        mask: (d,) False for entries that pass through.
        count: vectors that they are of, 0 where unknown.
    """

    mean: FloatArray | None = None
    std: FloatArray | None = None
    minimum: FloatArray | None = None
    maximum: FloatArray | None = None
    q01: FloatArray | None = None
    q99: FloatArray | None = None
    mask: BoolArray | None = None
    count: int = 0

    def __post_init__(self) -> None:
        known = {name: getattr(self, name) for name in _NUMBERS if getattr(self, name) is not None}
        if not known:
            raise ContractError(f"statistics have none of {', '.join(_NUMBERS)}; compute them from the dataset")
        shapes = {name: np.shape(values) for name, values in {**known, "mask": self.mask}.items() if values is not None}
        shape = next(iter(shapes.values()))
        if len(set(shapes.values())) != 1 or len(shape) != 1 or shape == (0,):
            raise ContractError(f"statistics are of different vectors, or of none: shapes {shapes}")
        for name, values in known.items():
            if not np.isfinite(values).all():
                raise ContractError(f"statistics: {name} {values.tolist()} isn't finite")
        if self.std is not None and (self.std < 0.0).any():
            raise ContractError(f"statistics: std {self.std.tolist()} is negative")
        for lower, upper in (("minimum", "maximum"), ("q01", "q99")):
            if lower in known and upper in known and (known[lower] > known[upper]).any():
                raise ContractError(
                    f"statistics: {lower} {known[lower].tolist()} is above {upper} {known[upper].tolist()}"
                )

    @property
    def width(self) -> int:
        """Entries of the vector."""
        return next(len(values) for values in (getattr(self, name) for name in _NUMBERS) if values is not None)

    @classmethod
    def from_samples(cls, samples: FloatArray, mask: BoolArray | None = None) -> Statistics:
        """All statistics of (n, d) vectors.

        Raises:
            ContractError: if there is none, or one isn't finite.
        """
        samples = np.asarray(samples, dtype=np.float64)
        if samples.ndim != 2 or samples.size == 0:
            raise ContractError(f"statistics need (n, d) samples, found {samples.shape}")
        if not np.isfinite(samples).all():
            row, column = np.argwhere(~np.isfinite(samples))[0]
            raise ContractError(f"statistics: sample {row}, entry {column} is {samples[row, column]}, not finite")
        minimum, maximum = samples.min(axis=0), samples.max(axis=0)
        # The mean of equal numbers is off by rounding, and so would be the spread about it.
        is_constant = minimum == maximum
        q01, q99 = np.quantile(samples, [0.01, 0.99], axis=0)
        mean = np.where(is_constant, minimum, samples.mean(axis=0))
        std = np.where(is_constant, 0.0, samples.std(axis=0))
        return cls(mean, std, minimum, maximum, q01, q99, mask, len(samples))

    def to_json(self) -> dict[str, Any]:
        """Lists and numbers, without what is missing."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in values.items()
            if value is not None
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Statistics:
        """The inverse of `to_json`; understands OpenVLA's and openpi's names, and passes over others.

        Raises:
            ContractError: for numbers that are none, or don't fit together.
        """
        if not isinstance(data, Mapping):
            raise ContractError(f"statistics can't be read: they are {type(data).__name__}, not an object of lists")
        named = {_FOREIGN_NAMES.get(key, key): value for key, value in data.items()}
        try:
            numbers = {
                name: np.asarray(named[name], dtype=np.float64) for name in _NUMBERS if named.get(name) is not None
            }
            mask = named.get("mask")
            if mask is not None and not all(isinstance(entry, bool) for entry in mask):
                raise ValueError(f"mask {mask} isn't a list of true and false")
            return cls(**numbers, mask=None if mask is None else np.array(mask, bool), count=int(named.get("count", 0)))
        except (TypeError, ValueError, OverflowError) as error:
            raise ContractError(f"statistics can't be read: {error}") from error

    def stats_hash(self) -> str:
        """Sixteen hex digits over everything that normalises: all but the count."""
        return canonical_hash({name: value for name, value in self.to_json().items() if name != "count"})


class Normaliser:
    """A formula with the statistics that it was trained with.

    Args:
        spec: the formula.
        statistics: of the vector; None for the formula `none`.

    Raises:
        ContractError: if the statistics lack what the formula needs, or the mask has another width.
    """

    def __init__(self, spec: NormalisationSpec, statistics: Statistics | None) -> None:
        self.spec, self.statistics = spec, statistics
        self._is_identity = spec.formula == "none"
        if self._is_identity:
            return
        if statistics is None:
            raise ContractError(f"formula {spec.formula} needs statistics; are they beside the checkpoint?")
        offset, divisor, spread, value = _affine(spec, statistics)
        is_masked = _mask(spec, statistics)
        scale = np.maximum(1.0, np.abs(value))
        self._is_constant = (spread <= _LEAST_SPREAD * scale) & is_masked
        self._value = value
        self._is_masked = is_masked
        self._offset = np.where(is_masked, offset, 0.0)
        self._divisor = np.where(is_masked & ~self._is_constant, divisor, 1.0)

    def normalise(self, x: Array) -> Array:
        """(..., d) as measured to (..., d) as the policy sees it; of the kind that went in, NumPy in float64.

        Raises:
            ContractError: if the last dimension isn't d.
        """
        if self._is_identity:
            return x
        xp, x = self._check(x)
        y = (x - as_like(self._offset, x)) / as_like(self._divisor, x)
        return self._clip(xp, xp.where(self._as_bools(xp, self._is_constant, x), xp.zeros_like(y), y), y)

    def unnormalise(self, y: Array) -> Array:
        """The inverse of `normalise`: (..., d) as the policy says it to (..., d) in the units of the statistics.

        Raises:
            ContractError: if the last dimension isn't d.
        """
        if self._is_identity:
            return y
        xp, y = self._check(y)
        y = self._clip(xp, y, y)
        x = y * as_like(self._divisor, y) + as_like(self._offset, y)
        return xp.where(self._as_bools(xp, self._is_constant, y), as_like(self._value, y) + xp.zeros_like(y), x)

    def _clip(self, xp: Any, values: Any, like: Any) -> Any:
        if self.spec.clip is None:
            return values
        clipped = xp.clip(values, -self.spec.clip, self.spec.clip)
        return xp.where(self._as_bools(xp, self._is_masked, like), clipped, values)

    def _check(self, array: Any) -> tuple[Any, Any]:
        xp, array = with_namespace(array)
        if array.ndim == 0 or array.shape[-1] != len(self._offset):
            raise ContractError(f"a vector of shape {tuple(array.shape)} met statistics of {len(self._offset)} entries")
        return xp, array

    def _as_bools(self, xp: Any, values: BoolArray, like: Any) -> Any:
        return values if xp is np else xp.as_tensor(values, device=like.device)


def _affine(spec: NormalisationSpec, statistics: Statistics) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Offset and divisor of y = (x - offset) / divisor, the spread, and the value where there is no spread."""
    if spec.formula == "mean_std":
        mean, std = _needed(spec, statistics, "mean", "std")
        return mean, std + spec.epsilon, std, mean
    names = ("minimum", "maximum") if spec.formula == "min_max" else ("q01", "q99")
    lower, upper = _needed(spec, statistics, *names)
    half = 0.5 * (upper - lower + spec.epsilon)
    return lower + half, half, upper - lower, lower


def _needed(spec: NormalisationSpec, statistics: Statistics, first: str, second: str) -> tuple[FloatArray, FloatArray]:
    found = getattr(statistics, first), getattr(statistics, second)
    if found[0] is None or found[1] is None:
        raise ContractError(f"formula {spec.formula} needs {first} and {second}, the statistics lack them")
    return found


def _mask(spec: NormalisationSpec, statistics: Statistics) -> BoolArray:
    if spec.mask is None:
        return np.ones(statistics.width, bool) if statistics.mask is None else statistics.mask
    if len(spec.mask) != statistics.width:
        raise ContractError(
            f"normalisation mask has {len(spec.mask)} entries, the statistics are of {statistics.width}; mend the mask"
        )
    return np.array(spec.mask, bool)
