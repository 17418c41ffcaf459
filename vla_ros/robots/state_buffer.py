"""The last joint states with their stamps, so that the arm's state at a camera's exposure can be asked for."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import SensorError
from vla_ros.types import RobotState


def find_joints(names: Sequence[str], wanted: Sequence[str], topic: str) -> NDArray[np.intp]:
    """Where in a message's joints each wanted one is, by exact name.

    Raises:
        SensorError: if one is missing, or named twice.
    """
    missing = [name for name in wanted if names.count(name) != 1]
    if missing:
        raise SensorError(
            f"{topic} has joints {list(names)}; needs each of {missing} exactly once; "
            "is it the right arm, and its prefix set?"
        )
    return np.array([names.index(name) for name in wanted], dtype=np.intp)


class StampOutsideBufferError(SensorError):
    """A state was asked for at a time for which none is known.

    Args:
        stamp_ns: the time asked for.
        distance_ns: from there to the nearest state, negative where that is older.
        tolerance_ns: the most that was allowed.
    """

    def __init__(self, stamp_ns: int, distance_ns: int, tolerance_ns: int) -> None:
        self.stamp_ns, self.distance_ns, self.tolerance_ns = stamp_ns, distance_ns, tolerance_ns
        side = "before" if distance_ns < 0 else "after"
        super().__init__(
            f"nearest joint state is {abs(distance_ns) * 1e-6:.1f} ms {side} the stamp asked for "
            f"(limit {tolerance_ns * 1e-6:.1f} ms); is joint_states published, and are the clocks in step?"
        )


class JointStateBuffer:
    """A ring of joint states in order of their stamps. Any thread may append and ask.

    Attributes:
        jump_ns: signed step of the stamps at the last jump, None if there was none. After a jump back every later state
            is refused until somebody has looked into it and calls `clear`.
        refusal: why the last state was refused, None if it was taken.
    """

    def __init__(self, capacity: int, jump_limit_ns: int = 500_000_000) -> None:
        """
        Args:
            capacity: states kept, at least 2.
            jump_limit_ns: a step of the stamps past this, either way, is a jump; nothing is interpolated across one.
        """
        if capacity < 2:
            raise ValueError(f"capacity {capacity} is below 2")
        self.jump_ns: int | None = None
        self.refusal: str | None = None
        self._capacity = capacity
        self._jump_limit_ns = jump_limit_ns
        self._lock = threading.Lock()
        # Cut back to `capacity` when twice as long: cheaper than a deque to search, and amortised as cheap to fill.
        self._stamps: list[int] = []
        self._states: list[RobotState] = []

    def __len__(self) -> int:
        return min(len(self._stamps), self._capacity)

    def append(self, state: RobotState) -> bool:
        """Takes a state that is finite and newer than all before.

        Returns:
            False if it was refused; `refusal` says why and `jump_ns` whether the clock jumped.
        """
        is_finite = np.isfinite(state.positions).all() and np.isfinite(state.velocities).all()
        with self._lock:
            if not is_finite:
                self.refusal = "joint state isn't finite"
                return False
            if self._stamps:
                step_ns = state.stamp_ns - self._stamps[-1]
                if abs(step_ns) > self._jump_limit_ns:
                    self.jump_ns = step_ns
                if step_ns <= 0:
                    self.refusal = f"joint state is {-step_ns * 1e-6:.3f} ms older than the one before"
                    return False
            self.refusal = None
            self._stamps.append(state.stamp_ns)
            self._states.append(state)
            if len(self._stamps) >= 2 * self._capacity:
                del self._stamps[: -self._capacity], self._states[: -self._capacity]
            return True

    def clear(self) -> None:
        """Forgets all states and the last jump, as on re-engaging or after a clock was set."""
        with self._lock:
            self._stamps.clear()
            self._states.clear()
            self.jump_ns = self.refusal = None

    def newest(self) -> RobotState | None:
        """The newest state, None while there is none."""
        with self._lock:
            return self._states[-1] if self._states else None

    def oldest(self) -> RobotState | None:
        """The oldest state that is kept, None while there is none."""
        with self._lock:
            return self._states[max(0, len(self._states) - self._capacity)] if self._states else None

    def at(self, stamp_ns: int, tolerance_ns: int = 0) -> RobotState:
        """The state at a time, interpolated linearly between its neighbours; past the ends the end itself.

        Args:
            stamp_ns: the time.
            tolerance_ns: how far past the ends, or inside a jump from the nearest state, the time may lie.

        Raises:
            SensorError: while no state has come.
            StampOutsideBufferError: for a time further off than the tolerance.
        """
        return state_between(stamp_ns, self.around(stamp_ns, tolerance_ns))

    def around(self, stamp_ns: int, tolerance_ns: int = 0) -> tuple[RobotState, ...]:
        """What `at` is made of, arguments and errors likewise: one state, or the two between which the time lies."""
        with self._lock:
            if not self._stamps:
                raise SensorError("no joint state yet; is joint_states published?")
            oldest = max(0, len(self._stamps) - self._capacity)
            i = bisect_left(self._stamps, stamp_ns, lo=oldest)
            after = self._states[i] if i < len(self._states) else None
            before = self._states[i - 1] if i > oldest else None
        if after is not None and after.stamp_ns == stamp_ns:
            return (after,)
        if before is None or after is None or after.stamp_ns - before.stamp_ns > self._jump_limit_ns:
            return (_nearest(stamp_ns, before, after, tolerance_ns),)
        return before, after


def state_between(stamp_ns: int, around: Sequence[RobotState]) -> RobotState:
    """The state at a time out of one, which stands for it, or the two between which it lies."""
    if len(around) == 2:
        return _interpolate(stamp_ns, *around)
    (state,) = around
    if state.stamp_ns == stamp_ns:
        return state
    return RobotState(stamp_ns, state.positions, state.velocities, state.gripper_opening)


def _nearest(stamp_ns: int, before: RobotState | None, after: RobotState | None, tolerance_ns: int) -> RobotState:
    state = min((s for s in (before, after) if s is not None), key=lambda s: abs(s.stamp_ns - stamp_ns))
    distance_ns = state.stamp_ns - stamp_ns
    if abs(distance_ns) > tolerance_ns:
        raise StampOutsideBufferError(stamp_ns, distance_ns, tolerance_ns)
    return state


def _interpolate(stamp_ns: int, before: RobotState, after: RobotState) -> RobotState:
    fraction = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
    opening = before.gripper_opening
    if opening is not None:
        opening = None if after.gripper_opening is None else opening + fraction * (after.gripper_opening - opening)
    return RobotState(
        stamp_ns,
        before.positions + fraction * (after.positions - before.positions),
        before.velocities + fraction * (after.velocities - before.velocities),
        opening,
    )
