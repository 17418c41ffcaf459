"""Frames in a tree: what TF says, kept for look-ups by time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from vla_ros.errors import SensorError
from vla_ros.geometry import se3
from vla_ros.types import FloatArray


class TransformError(SensorError):
    """Two frames that aren't connected, or not at the time asked for."""


class TransformBuffer:
    """Frames in a tree and how they moved lately.

    Args:
        duration_s: how long moving transforms are kept.
    """

    def __init__(self, duration_s: float = 10.0) -> None:
        self._duration_ns = round(duration_s * 1e9)
        self._parents: dict[str, str] = {}
        self._static: dict[str, FloatArray] = {}
        self._moving: dict[str, tuple[list[int], list[FloatArray]]] = {}

    def set_transform(
        self, parent: str, child: str, T_parent_child: FloatArray, stamp_ns: int, is_static: bool
    ) -> None:
        """Takes one edge of the tree; a child has one parent, the latest named."""
        if self._parents.get(child) != parent:
            self._static.pop(child, None)
            self._moving.pop(child, None)
            self._parents[child] = parent
        if is_static:
            self._static[child] = T_parent_child
            return
        stamps, poses = self._moving.setdefault(child, ([], []))
        place = bisect_right(stamps, stamp_ns)
        if place and stamps[place - 1] == stamp_ns:
            poses[place - 1] = T_parent_child
            return
        stamps.insert(place, stamp_ns)
        poses.insert(place, T_parent_child)
        old = bisect_right(stamps, stamps[-1] - self._duration_ns)
        del stamps[:old], poses[:old]

    def lookup(self, target: str, source: str, stamp_ns: int | None = None) -> FloatArray:
        """T_target_source (4, 4): p_target = T @ p_source.

        Args:
            target: frame in which the result is expressed.
            source: frame whose pose it is.
            stamp_ns: when; None for the newest time that is known.

        Raises:
            TransformError: if the frames aren't connected, or the time lies outside what is known.
        """
        up_source, up_target = self._ancestors(source), self._ancestors(target)
        common = next((frame for frame in up_source if frame in up_target), None)
        if common is None:
            known = ", ".join(sorted({*self._parents, *self._parents.values()})) or "none"
            raise TransformError(f"no transform from {source!r} to {target!r}; frames known: {known}")
        T_common_source = self._climb(up_source, common, stamp_ns)
        T_common_target = self._climb(up_target, common, stamp_ns)
        return se3.invert(T_common_target) @ T_common_source

    def _ancestors(self, frame: str) -> list[str]:
        chain = [frame]
        while chain[-1] in self._parents:
            parent = self._parents[chain[-1]]
            if parent in chain:
                raise TransformError(f"frames {chain} form a circle; two nodes publish one child")
            chain.append(parent)
        return chain

    def _climb(self, chain: Sequence[str], top: str, stamp_ns: int | None) -> FloatArray:
        T = np.eye(4)
        for child in chain[: chain.index(top)]:
            T = self._edge(child, stamp_ns) @ T
        return T

    def _edge(self, child: str, stamp_ns: int | None) -> FloatArray:
        if child in self._static:
            return self._static[child]
        stamps, poses = self._moving[child]
        if stamp_ns is None or stamp_ns == stamps[-1]:
            return poses[-1]
        place = bisect_right(stamps, stamp_ns)
        if place == 0 or place == len(stamps):
            raise TransformError(
                f"transform of {child!r} is known from {stamps[0] * 1e-9:.3f} s to {stamps[-1] * 1e-9:.3f} s, "
                f"not at {stamp_ns * 1e-9:.3f} s"
            )
        before_ns, after_ns = stamps[place - 1], stamps[place]
        fraction = (stamp_ns - before_ns) / (after_ns - before_ns)
        return se3.interpolate(poses[place - 1], poses[place], fraction)
