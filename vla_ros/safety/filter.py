"""The Cartesian safety filter: chunks of the selected source in, one safe target a tick and a verdict out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.stretching import StretchedTimeline
from vla_ros.actions.timeline import ChunkTimeline, Sample
from vla_ros.errors import ChunkError, SensorError
from vla_ros.robots.config import ToolLimits
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.continuation import SoftStart, joint_motion, tool_motion
from vla_ros.safety.joint_limits import JointRate, JointStoppingRoom
from vla_ros.safety.room import KeepOut, StoppingRoom
from vla_ros.safety.tool_motion import ToolLimit, ToolMotion
from vla_ros.safety.watch import ArmWatch
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
_BLEND_SHARE = 0.8


class SafetyFilter:
    """One arm's filter. It never looks at a clock: every call is told the time.

    What leads from state to state; whatever isn't listed leaves a state as it is:

    - IDLE: a chunk -> RUNNING, `stop` -> STOPPED, a joint state that can't be relied upon -> FAULT.
    - RUNNING: the chunk's end, another source or task, a jump of the clock, joints on the way into a forbidden region
      -> HOLDING; `stop` -> STOPPED; no joint state to rely upon, an arm that isn't where it was told to be -> FAULT.
    - HOLDING: a chunk -> RUNNING, `stop` -> STOPPED, no joint state to rely upon -> FAULT.
    - STOPPED: `reset` -> HOLDING.
    - FAULT: `stop` -> STOPPED; `reset`, or reliable joint states of an arm that has stood still for 0.3 s -> HOLDING.

    Every chunk that leads to RUNNING starts softly, from the last command where the arm follows it, else from what is
    measured, at rest; after a fault always from there. HOLDING and STOPPED brake; in FAULT nothing is commanded.

    Args:
        config: limits.
        tool_limits: the robot's own, which win where they are tighter.
        forward_kinematics: q (n,) -> T_base_tcp (4, 4).
        joint_limits: of the joints, for chunks in joint space.
        timeline: another than the configuration's, to compare seams.
    """

    def __init__(
        self,
        config: SafetyConfig,
        tool_limits: ToolLimits,
        forward_kinematics: Callable[[FloatArray], FloatArray],
        joint_limits: OffsetLimits,
        timeline: ChunkTimeline | None = None,
    ) -> None:
        self.config = config
        self._forward_kinematics, self._joint_limits = forward_kinematics, joint_limits
        self.watch = ArmWatch(config, forward_kinematics)
        self._rate, regions = config.make_rate(tool_limits), config.make_regions()
        self._limits: tuple[ToolLimit, ...] = (KeepOut(regions), self._rate, StoppingRoom(regions, self._rate))
        # The soft start is the rate's: a lead over as slow as that would last long after it.
        rates = (self._rate.velocity, self._rate.acceleration, self._rate.jerk)
        self._tool_blend = OffsetLimits(*(_BLEND_SHARE * np.repeat(rate, 3) for rate in rates))
        self._joint_rate = JointRate(joint_limits)
        self._joint_room = JointStoppingRoom(regions, joint_limits, forward_kinematics)
        self.timeline = StretchedTimeline(config.make_timeline() if timeline is None else timeline)
        """Holds the chunks in force; `timeline.scale` slows them down as the arm does."""

        self._state = MotionState.IDLE
        self._reason = "no chunk since start"
        self._source = ""
        self._oldest_stamp_ns = 0
        self._stepped_ns = 0
        self._soft_start = SoftStart(config.soft_start_s)
        self._due: Sample | None = None
        """What the timeline wanted in the last tick."""

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
        return self.timeline.stamp_ns

    def select_source(self, source: str, now_ns: int) -> None:
        """Chooses who may move the arm; the motion in progress ends and older chunks are dropped."""
        if source != self._source:
            self._source = source
            self.drop_chunks(now_ns, f"source is now {source or 'none'}")

    def drop_chunks(self, now_ns: int, reason: str) -> None:
        """Holds, and refuses every chunk stamped before now (new task, new source)."""
        self._oldest_stamp_ns = now_ns
        self.timeline.clear()
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
        if self.config.observation_latency_s:
            chunk = replace(chunk, stamp_ns=chunk.stamp_ns - round(self.config.observation_latency_s / _NS))
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
        motion, joint, share = self._motion, self._joint, self._soft_start.share(now_ns)
        if is_engaging or is_tool != (motion is not None):
            newest = states.newest() or measured
            motion = tool_motion(motion, joint, newest, self._forward_kinematics) if is_tool else None
            joint = None if is_tool else joint_motion(joint, newest, self._opening)
        if is_engaging:
            share = SoftStart.least if motion is None else min(1.0, max(SoftStart.least, self._rate.share(motion)))
        current = self._last_sample(motion, joint, now_ns)
        self.timeline.offer(chunk, now_ns, anchor, current, self._blend_limits(is_tool, share))
        # Nothing has changed until here, where nothing can be refused any more.
        self._motion, self._joint = motion, joint
        if is_engaging:
            self._state, self._reason = MotionState.RUNNING, ""
            self._soft_start.engage(now_ns, share)

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
        jump_s = (now_ns - self._stepped_ns) * _NS - dt_s
        if self._stepped_ns and abs(jump_s) > self.config.state_timeout_s:
            self.drop_chunks(now_ns, f"the clock jumped by {jump_s:.3f} s")
        self._check_measured(now_ns, measured)
        self._stepped_ns = now_ns
        sample = self._due = self.timeline.sample(now_ns) if self._state is MotionState.RUNNING else None
        if sample is None:
            return self._brake(now_ns, dt_s), self._verdict([])
        if not sample.is_finite:
            self._hold(f"the chunk of {self._source} leads to numbers that aren't finite")
            return self._brake(now_ns, dt_s), self._verdict([Intervention("finite", self._reason)])
        if sample.gripper_opening is not None:
            self._opening = sample.gripper_opening
        if sample.positions is not None:
            return self._step_joints(sample, now_ns, dt_s)
        return self._step_tool(sample, now_ns, dt_s)

    def _step_tool(self, sample: Sample, now_ns: int, dt_s: float) -> tuple[ToolTarget | None, Verdict]:
        if sample.T_base_tcp is None or self._motion is None:
            raise ChunkError("the timeline gave no tool pose for a tool chunk")
        motion = ToolMotion(sample.T_base_tcp, sample.velocity, sample.acceleration)
        acted = []
        scale = self._soft_start.share(now_ns)
        for limit in self._limits:
            motion, intervention = limit.apply(motion, self._motion, dt_s, scale)
            if intervention is not None:
                acted.append(intervention)
        self._motion = motion
        if sample.is_exhausted and max(map(abs, motion.twist.tolist())) < _AT_REST:
            self._hold(f"the last chunk of {self._source} has ended; waiting for the next")
        return ToolTarget(now_ns, motion.T_base_tcp, motion.twist, self._opening), self._verdict(acted)

    def _step_joints(self, sample: Sample, now_ns: int, dt_s: float) -> tuple[ToolTarget | JointTarget | None, Verdict]:
        if sample.positions is None or self._joint is None:
            raise ChunkError("the timeline gave no joint positions for a joint chunk")
        wanted = JointTarget(now_ns, sample.positions, sample.velocity, self._opening)
        target, slowed = self._joint_rate.apply(wanted, self._joint, dt_s, self._soft_start.share(now_ns))
        acted = [] if slowed is None else [slowed]
        hit = self._joint_room.hit(target, self._joint)
        if hit is not None:
            self._hold(hit.reason)
            return self._brake(now_ns, dt_s), self._verdict([*acted, hit])
        self._joint = target
        if sample.is_exhausted and float(np.abs(target.velocities).max()) < _AT_REST:
            self._hold(f"the last chunk of {self._source} has ended; waiting for the next")
        return target, self._verdict(acted)

    def _brake(self, now_ns: int, dt_s: float) -> ToolTarget | JointTarget | None:
        if self._state is MotionState.FAULT:
            return None
        if self._motion is not None:
            self._motion = self._rate.brake(self._motion, dt_s)
            return ToolTarget(now_ns, self._motion.T_base_tcp, self._motion.twist, self._opening)
        if self._joint is not None:
            self._joint = replace(self._joint_room.brake(self._joint, now_ns, dt_s), gripper_opening=self._opening)
        return self._joint

    def _check_measured(self, now_ns: int, measured: RobotState | None) -> None:
        problem = self.watch.unusable(measured, now_ns)
        if self._state is MotionState.IDLE and measured is None:
            self._reason = "no joint state yet; is the arm's driver running?"
        elif problem and self._state is not MotionState.STOPPED:
            self._fault(problem, now_ns)
        elif self._state is MotionState.FAULT and measured is not None:
            self._oldest_stamp_ns = now_ns
            if self.watch.has_settled(measured):
                self._hold(f"waiting for a chunk after a fault: {self._reason}")
        elif self._state is MotionState.RUNNING and measured is not None:
            astray = self.watch.astray(measured, self._motion, self._joint)
            if astray:
                self._fault(astray, now_ns)

    def _last_sample(self, motion: ToolMotion | None, joint: JointTarget | None, now_ns: int) -> Sample | None:
        """What the timeline leads over from: as of the last tick."""
        stamp_ns, due = self._stepped_ns or now_ns, self._due
        if motion is not None:
            # What passed untouched goes on exactly; a motion's own twist is the mean over a tick.
            if due is not None and due.T_base_tcp is not None and np.array_equal(due.T_base_tcp, motion.T_base_tcp):
                return due
            return Sample(motion.T_base_tcp, None, motion.twist, motion.acceleration, self._opening, stamp_ns, False)
        if joint is not None:
            if due is not None and due.positions is not None and np.array_equal(due.positions, joint.positions):
                return due
            rest = np.zeros_like(joint.positions)
            return Sample(None, joint.positions, joint.velocities, rest, self._opening, stamp_ns, False)
        return None

    def _blend_limits(self, is_tool: bool, share: float) -> OffsetLimits:
        if is_tool:
            return self._tool_blend
        scale, limits = _BLEND_SHARE * share, self._joint_limits
        return OffsetLimits(scale * limits.velocity, scale * limits.acceleration, scale * limits.jerk)

    def _hold(self, reason: str) -> None:
        self.timeline.clear()
        self._state, self._reason = MotionState.HOLDING, reason

    def _fault(self, reason: str, now_ns: int) -> None:
        self.drop_chunks(now_ns, reason)
        self.watch.unsettle()
        self._motion = self._joint = None
        self._state, self._reason = MotionState.FAULT, reason

    def _verdict(self, acted: list[Intervention]) -> Verdict:
        if self._state is MotionState.RUNNING:
            return Verdict(self._state, tuple(acted))
        return Verdict(self._state, (Intervention(self._state.value, self._reason), *acted))
