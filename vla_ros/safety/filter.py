"""The Cartesian safety filter: chunks of the selected source in, one safe target a tick and a verdict out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.timeline import ChunkTimeline, Sample
from vla_ros.errors import ChunkError, SensorError
from vla_ros.geometry import se3
from vla_ros.robots.config import ToolLimits
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.continuation import joint_motion, tool_motion
from vla_ros.safety.limits import StoppingRoom, ToolMotion, ToolRate, WorkspaceBox
from vla_ros.types import (
    FloatArray,
    Intervention,
    JointChunk,
    JointTarget,
    MotionState,
    RobotState,
    ToolChunk,
    ToolTarget,
    Verdict,
)

_NS = 1e-9
# A chunk made on the spot is stamped a little after the newest joint state.
_ANCHOR_TOLERANCE_NS = 50_000_000
# m/s and rad/s: rounding of the pose error alone makes some 1e-14 of a tool that stands still.
_AT_REST = 1e-6
# Part of the limits that leading over to a new chunk may use; the rest is the chunk's own.
_BLEND_SHARE = 0.5
# Part of the limits at the moment of engaging from rest; in motion, what the motion still takes of them.
_SOFT_START = 0.2


class SafetyFilter:
    """One arm's filter. It never looks at a clock: every call is told the time.

    Args:
        config: limits.
        tool_limits: the robot's own, which win where they are tighter.
        forward_kinematics: q (n,) -> T_base_tcp (4, 4).
        joint_limits: of the joints, for chunks in joint space.
    """

    def __init__(
        self,
        config: SafetyConfig,
        tool_limits: ToolLimits,
        forward_kinematics: Callable[[FloatArray], FloatArray],
        joint_limits: OffsetLimits,
    ) -> None:
        self.config = config
        self._forward_kinematics, self._joint_limits = forward_kinematics, joint_limits
        self._box = WorkspaceBox(np.array(config.workspace_lower_m), np.array(config.workspace_upper_m))
        self._rate = ToolRate(
            (
                min(config.velocity_m_s, tool_limits.velocity_m_s),
                min(config.angular_velocity_rad_s, tool_limits.angular_velocity_rad_s),
            ),
            (
                min(config.acceleration_m_s2, tool_limits.acceleration_m_s2),
                min(config.angular_acceleration_rad_s2, tool_limits.angular_acceleration_rad_s2),
            ),
        )
        self._limits = (self._box, self._rate, StoppingRoom(self._box, self._rate))
        self._timeline = ChunkTimeline(config.chunk_max_age_s)
        self._state = MotionState.IDLE
        self._reason = "no chunk since start"
        self._source = ""
        self._oldest_stamp_ns = 0
        self._engaged_ns = self._stepped_ns = 0
        self._engaged_share = _SOFT_START
        self._motion: ToolMotion | None = None
        self._joint: JointTarget | None = None
        self._opening: float | None = None

    @property
    def state(self) -> MotionState:
        return self._state

    @property
    def source(self) -> str:
        """The selected source, empty for none."""
        return self._source

    @property
    def chunk_stamp_ns(self) -> int | None:
        """Stamp of the chunk in force."""
        return self._timeline.stamp_ns

    def select_source(self, source: str, now_ns: int) -> None:
        """Chooses who may move the arm; the motion in progress ends and older chunks are dropped."""
        if source != self._source:
            self._source = source
            self.drop_chunks(now_ns, f"source is now {source or 'none'}")

    def drop_chunks(self, now_ns: int, reason: str) -> None:
        """Holds, and refuses every chunk stamped before now (new task, new source)."""
        self._oldest_stamp_ns = now_ns
        self._timeline.clear()
        if self._state in (MotionState.RUNNING, MotionState.HOLDING):
            self._hold(reason)

    def stop(self, reason: str, now_ns: int) -> None:
        """Brakes and stays stopped until `reset`."""
        self.drop_chunks(now_ns, reason)
        self._state, self._reason = MotionState.STOPPED, reason

    def reset(self, now_ns: int) -> None:
        """Ends a stop or a fault; the arm moves again with the next chunk stamped from now on."""
        if self._state in (MotionState.STOPPED, MotionState.FAULT):
            self._oldest_stamp_ns = now_ns
            self._hold("reset; waiting for a chunk")

    def offer(self, chunk: ToolChunk | JointChunk, now_ns: int, states: JointStateBuffer) -> None:
        """Takes a chunk of the selected source.

        Args:
            chunk: decoded from the wire.
            now_ns: present ROS time.
            states: measured joint states, for the anchor at the chunk's stamp.

        Raises:
            ChunkError: if it can't be executed, with the reason; nothing changes then.
        """
        if chunk.source != self._source:
            raise ChunkError(f"chunk of {chunk.source} while the selected source is {self._source or 'none'}; dropped")
        if self._state is MotionState.STOPPED:
            raise ChunkError(f"chunk of {chunk.source} while stopped ({self._reason}); call safety/reset first")
        if self._state is MotionState.FAULT:
            raise ChunkError(f"chunk of {chunk.source} during a fault ({self._reason}); dropped")
        if chunk.stamp_ns < self._oldest_stamp_ns:
            raise ChunkError(f"chunk of {chunk.source} is from before the last change of task or source; dropped")
        try:
            measured = states.at(chunk.stamp_ns, _ANCHOR_TOLERANCE_NS)
        except SensorError as error:
            raise ChunkError(f"chunk of {chunk.source} has no anchor: {error}") from error
        is_tool = isinstance(chunk, ToolChunk)
        anchor = self._forward_kinematics(measured.positions) if is_tool else measured.positions
        is_engaging = self._state is not MotionState.RUNNING
        motion, joint, share = self._motion, self._joint, self._soft_start(now_ns)
        if is_engaging or is_tool != (motion is not None):
            newest = states.newest() or measured
            motion = tool_motion(motion, joint, newest, self._forward_kinematics) if is_tool else None
            joint = None if is_tool else joint_motion(joint, newest, self._opening)
        if is_engaging:
            share = _SOFT_START if motion is None else min(1.0, max(_SOFT_START, self._rate.share(motion)))
        current = self._last_sample(motion, joint, now_ns)
        self._timeline.offer(chunk, now_ns, anchor, current, self._blend_limits(is_tool, share))
        # Nothing has changed until here, where nothing can be refused any more.
        self._motion, self._joint = motion, joint
        if is_engaging:
            self._state, self._reason = MotionState.RUNNING, ""
            self._engaged_ns, self._engaged_share = now_ns, share

    def step(
        self, now_ns: int, dt_s: float, measured: RobotState | None
    ) -> tuple[ToolTarget | JointTarget | None, Verdict]:
        """The target for one tick.

        Args:
            now_ns: time of the tick.
            dt_s: duration of a tick.
            measured: newest robot state.

        Returns:
            The target, None while the arm was never engaged or is not to be commanded; and what acted.
        """
        self._check_measured(now_ns, measured)
        self._stepped_ns = now_ns
        sample = self._timeline.sample(now_ns) if self._state is MotionState.RUNNING else None
        if sample is None:
            return self._brake(now_ns, dt_s), self._verdict([])
        if not sample.is_finite:
            self._hold(f"the chunk of {self._source} leads to numbers that aren't finite")
            return self._brake(now_ns, dt_s), self._verdict([Intervention("finite", self._reason)])
        if sample.gripper_opening is not None:
            self._opening = sample.gripper_opening
        if sample.positions is not None:
            return self._step_joints(sample, now_ns)
        return self._step_tool(sample, now_ns, dt_s)

    def _step_tool(self, sample: Sample, now_ns: int, dt_s: float) -> tuple[ToolTarget | None, Verdict]:
        if sample.T_base_tcp is None or self._motion is None:
            raise ChunkError("the timeline gave no tool pose for a tool chunk")
        motion = ToolMotion(sample.T_base_tcp, sample.velocity, sample.acceleration)
        acted = []
        scale = self._soft_start(now_ns)
        for limit in self._limits:
            motion, intervention = limit.apply(motion, self._motion, dt_s, scale)
            if intervention is not None:
                acted.append(intervention)
        self._motion = motion
        if sample.is_exhausted and np.all(np.abs(motion.twist) < _AT_REST):
            self._hold(f"the last chunk of {self._source} has ended; waiting for the next")
        return ToolTarget(now_ns, motion.T_base_tcp, motion.twist, self._opening), self._verdict(acted)

    def _step_joints(self, sample: Sample, now_ns: int) -> tuple[JointTarget | None, Verdict]:
        if sample.positions is None:
            raise ChunkError("the timeline gave no joint positions for a joint chunk")
        p = self._forward_kinematics(sample.positions)[:3, 3]
        if not self._box.contains(p):
            self._hold(f"joint target brings the tcp to {np.round(p, 3).tolist()} m, out of the workspace")
            return self._brake(now_ns, 0.0), self._verdict([Intervention("workspace", self._reason)])  # type: ignore[return-value]
        self._joint = JointTarget(now_ns, sample.positions, sample.velocity, self._opening)
        if sample.is_exhausted and np.all(np.abs(sample.velocity) < _AT_REST):
            self._hold(f"the last chunk of {self._source} has ended; waiting for the next")
        return self._joint, self._verdict([])

    def _brake(self, now_ns: int, dt_s: float) -> ToolTarget | JointTarget | None:
        if self._state is MotionState.FAULT:
            return None
        if self._motion is not None:
            self._motion = self._rate.brake(self._motion, dt_s)
            return ToolTarget(now_ns, self._motion.T_base_tcp, self._motion.twist, self._opening)
        if self._joint is not None:
            rest = np.zeros_like(self._joint.velocities)
            self._joint = JointTarget(now_ns, self._joint.positions, rest, self._opening)
        return self._joint

    def _check_measured(self, now_ns: int, measured: RobotState | None) -> None:
        if measured is None:
            if self._state is MotionState.IDLE:
                self._reason = "no joint state yet; is the arm's driver running?"
            elif self._state in (MotionState.RUNNING, MotionState.HOLDING):
                self._fault("no joint state any more; has the driver's clock jumped?", now_ns)
            return
        silence_s = (now_ns - measured.stamp_ns) * _NS
        if silence_s > self.config.state_timeout_s:
            if self._state is not MotionState.STOPPED:
                limit_s = self.config.state_timeout_s
                self._fault(f"no joint state for {silence_s:.2f} s (limit {limit_s} s); is the driver running?", now_ns)
            return
        if self._state is MotionState.FAULT:
            self._oldest_stamp_ns = now_ns
            self._hold(f"waiting for a chunk after a fault: {self._reason}")
            return
        if self._state is MotionState.RUNNING and self._motion is not None:
            gap = se3.pose_error(self._forward_kinematics(measured.positions), self._motion.T_base_tcp)
            distance = float(np.linalg.norm(gap[:3]))
            if distance > self.config.tracking_tolerance_m:
                self._fault(
                    f"the arm is {distance:.3f} m away from its target (limit {self.config.tracking_tolerance_m} m); "
                    "is it blocked, stopped or in a reset?",
                    now_ns,
                )

    def _last_sample(self, motion: ToolMotion | None, joint: JointTarget | None, now_ns: int) -> Sample | None:
        """What the timeline leads over from: as of the last tick."""
        stamp_ns = self._stepped_ns or now_ns
        if motion is not None:
            twist, acceleration = motion.twist, motion.acceleration
            return Sample(motion.T_base_tcp, None, twist, acceleration, self._opening, stamp_ns, False)
        if joint is not None:
            rest = np.zeros_like(joint.positions)
            return Sample(None, joint.positions, joint.velocities, rest, self._opening, stamp_ns, False)
        return None

    def _blend_limits(self, is_tool: bool, share: float) -> OffsetLimits | None:
        if self.config.blend_s <= 0.0:
            return None
        velocity, acceleration = self._joint_limits.velocity, self._joint_limits.acceleration
        scale = _BLEND_SHARE * share
        if is_tool:
            # The soft start is the rate's: a lead over as slow as that would last long after it.
            scale = _BLEND_SHARE
            # The limits hold for norms: each of the three axes may take its share.
            velocity = np.repeat(self._rate.velocity, 3) / np.sqrt(3.0)
            acceleration = np.repeat(self._rate.acceleration, 3) / np.sqrt(3.0)
        # With this jerk a small correction takes about `blend_s`.
        jerk = scale * acceleration / (0.25 * self.config.blend_s)
        return OffsetLimits(scale * velocity, scale * acceleration, jerk)

    def _soft_start(self, now_ns: int) -> float:
        if self.config.soft_start_s <= 0.0:
            return 1.0
        # Ticks that are caught up with lie before the moment of engaging.
        share = max(0.0, (now_ns - self._engaged_ns) * _NS / self.config.soft_start_s)
        return min(1.0, self._engaged_share + (1.0 - self._engaged_share) * share)

    def _hold(self, reason: str) -> None:
        self._timeline.clear()
        self._state, self._reason = MotionState.HOLDING, reason

    def _fault(self, reason: str, now_ns: int) -> None:
        self.drop_chunks(now_ns, reason)
        self._motion = self._joint = None
        self._state, self._reason = MotionState.FAULT, reason

    def _verdict(self, acted: list[Intervention]) -> Verdict:
        if self._state is MotionState.RUNNING:
            return Verdict(self._state, tuple(acted))
        return Verdict(self._state, (Intervention(self._state.value, self._reason), *acted))
