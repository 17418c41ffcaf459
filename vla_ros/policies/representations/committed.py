"""Real-time chunking's prefix: what of the next chunk is decided already, because it will be executed meanwhile.

The chunk under way is kept as it was commanded, in absolute poses or postures. At each query it is read at the times of
the new chunk's steps, written in the policy's form about the new observation, and normalised: so neither a new anchor
nor other statistics bend it.

Source: Black, Galliker and Levine, "Real-Time Execution of Action Chunking Flow Policies" (RTC), arXiv 2506.07339.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_ros.actions.timeline import check_form
from vla_ros.actions.track import NS, Track
from vla_ros.contract import ActionSpec
from vla_ros.errors import ChunkError
from vla_ros.geometry.arrays import as_like, with_namespace
from vla_ros.types import FloatArray, JointChunk, ToolChunk

# Two stamps this close are the same time: what is rounded to nanoseconds, in float64 seconds.
_SAME_NS = 1_000


@dataclass(frozen=True)
class CommittedPrefix:
    """What is known of the next chunk before it is inferred.

    Attributes:
        actions: (horizon, d) normalised; zeros past the known steps.
        count: d of the paper: the first steps, which will have been executed when the answer comes.
        known: first steps of which the chunk under way says something, at least `count`.
    """

    actions: FloatArray
    count: int
    known: int

    def weights(self, execution_horizon_steps: int) -> FloatArray:
        """(horizon,) the soft mask: 1 where committed, then fading to 0.

        It is 0 over the last `execution_horizon_steps`, and where nothing is known.
        """
        end = min(self.known, len(self.actions) - execution_horizon_steps)
        return prefix_weights(len(self.actions), self.count, max(self.count, end))


def prefix_weights(horizon: int, count: Any, end: Any) -> Any:
    """How much each step of a chunk is held to the chunk before it.

    Args:
        horizon: H, steps of the chunk.
        count: committed steps, whose weight is 1; a number, or (B,) for a batch.
        end: steps from this one on are free; a number, or (B,). Where it is below `count` fewer are held.

    Returns:
        (..., H), a tensor where `count` is one.

    Source: RTC, eq. 5, with `end` for its H - s.
    """
    xp, first = with_namespace(count)
    first = (first * 1.0)[..., None]
    last = as_like(end, first).reshape(-1, 1) if getattr(end, "ndim", 0) else as_like(end, first)
    steps = as_like(np.arange(horizon), first)
    first = xp.minimum(first, last)
    c = xp.clip((last - steps) / (last - first + 1.0), 0.0, 1.0)
    return c * xp.expm1(c) / (np.e - 1.0)


def committed_prefix(
    committed: ToolChunk | JointChunk | None,
    stamp_ns: int,
    expected_delay_s: float,
    spec: ActionSpec,
    horizon: int,
    encode: Callable[[Any], FloatArray],
    normalise: Callable[[FloatArray], FloatArray],
    gripper_opening: float | None = None,
) -> CommittedPrefix | None:
    """The normalised prefix of the chunk that will answer an observation.

    Args:
        committed: the chunk under way, `InferenceContext.committed`: postures, absolute poses, or relative to an anchor
            that it brings.
        stamp_ns: the observation's stamp.
        expected_delay_s: from there to the answer's first effect; steps due before that are committed. Past the
            committed chunk's end they are its last point, where the arm will be resting.
        spec: the policy's action.
        horizon: steps of the new chunk.
        encode: such a chunk, absolute, to (h, d) actions of `spec` about the new observation
            (`actions/encode.py`, with the observation's tcp pose or joint positions).
        normalise: (h, d) actions to what the model works in.
        gripper_opening: taken for every step if the chunk under way leaves the gripper alone: the measured one.

    Returns:
        None where nothing is known: after a reset, where the chunk under way begins more than a period after the new
        one's first step, is over without being committed to anything, or lacks a gripper that nobody measured, and
        for answers that are executed when they come (`on_arrival`), whenever that is.

    Raises:
        ChunkError: if the chunk under way is malformed, or relative to a pose that isn't known here.
    """
    if committed is None or spec.timing == "on_arrival":
        return None
    due_ns = step_times_ns(stamp_ns, spec, horizon)
    track = _follow(committed)
    if due_ns[0] < track.start_ns - round(spec.period_s / NS):
        return None
    count = int(np.count_nonzero(due_ns < stamp_ns + round(expected_delay_s / NS) - _SAME_NS))
    known = max(count, int(np.count_nonzero(due_ns <= track.end_ns + _SAME_NS)))
    openings = _openings_at(committed, due_ns[:known], gripper_opening)
    if known == 0 or (openings is None and spec.gripper != "none"):
        return None
    found = normalise(encode(_read(committed, track, stamp_ns, due_ns[:known], openings)))
    actions = np.zeros((horizon, found.shape[1]))
    actions[:known] = found
    return CommittedPrefix(actions, count, known)


def step_times_ns(stamp_ns: int, spec: ActionSpec, horizon: int) -> Any:
    """(horizon,) int64 when the steps of a chunk are due that answers the observation of a stamp."""
    steps = np.arange(horizon) + spec.first_action_offset_steps
    return stamp_ns + np.round(steps * (spec.period_s / NS)).astype(np.int64)


def _follow(chunk: ToolChunk | JointChunk) -> Track:
    if isinstance(chunk, JointChunk):
        check_form(chunk, chunk.positions[0] if chunk.positions.ndim == 2 and len(chunk.positions) else np.empty(0))
        anchor = np.empty(0)
    else:
        anchor = np.eye(4) if chunk.T_base_anchor is None else chunk.T_base_anchor
        check_form(chunk, anchor)
        if chunk.frame != "absolute" and chunk.T_base_anchor is None:
            raise ChunkError(
                f"the committed chunk of {chunk.source} is relative to the tcp at {chunk.stamp_ns} ns, which nobody "
                "knows here; commit to absolute poses, or send the anchor"
            )
    try:
        return Track(chunk, anchor, chunk.stamp_ns)
    except ValueError as error:
        raise ChunkError(f"no path leads through the committed chunk of {chunk.source}: {error}") from error


def _read(
    chunk: ToolChunk | JointChunk, track: Track, stamp_ns: int, due_ns: Any, openings: FloatArray | None
) -> ToolChunk | JointChunk:
    """The chunk's path at some times, absolute."""
    points = [track.sample(time_ns) for time_ns in due_ns.tolist()]
    times_s = (due_ns - stamp_ns) * NS
    if isinstance(chunk, JointChunk):
        postures = np.array([point.positions for point in points])
        return JointChunk(stamp_ns, postures, openings, times_s, chunk.source)
    poses = np.array([point.T_base_tcp for point in points])
    return ToolChunk(stamp_ns, "absolute", poses, openings, times_s, chunk.source)


def _openings_at(chunk: ToolChunk | JointChunk, due_ns: Any, measured: float | None) -> FloatArray | None:
    """The opening that each time falls under: that of the last point before it."""
    if chunk.openings is None:
        return None if measured is None else np.full(len(due_ns), measured)
    points_ns = chunk.stamp_ns + np.round(chunk.time_from_start_s / NS).astype(np.int64)
    latest = np.searchsorted(points_ns, due_ns + _SAME_NS, side="right") - 1
    return chunk.openings[np.maximum(latest, 0)]
