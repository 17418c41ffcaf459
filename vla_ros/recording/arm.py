"""The recorded arm at any time: states between their samples, as a node at work interpolates them, and the tcp."""

from __future__ import annotations

import math
from bisect import bisect_right

from vla_ros.observation.assembly import STATE_TOLERANCE_NS
from vla_ros.recording.recorded import RecordedEpisode
from vla_ros.robots.live_description import adopt
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import JointStateBuffer, state_between
from vla_ros.types import FloatArray, RobotState


class RecordedArm:
    """States and kinematics of an episode's arm. One thread's: the model computes in buffers of its own.

    Args:
        episode: what was recorded.
        model: of its robot, where the caller has one; it isn't anybody else's meanwhile. A real arm's isn't taken.

    Attributes:
        model: as nodes have it: from the robot's own description, or of a real arm from its driver's in the bag; where
            that file isn't here, from the bag's too.
    """

    def __init__(self, episode: RecordedEpisode, model: RobotModel | None = None) -> None:
        robot = episode.robot
        is_here = robot.description_file.is_file() or not episode.description
        if is_here and episode.info.hardware == "real" and episode.description:
            model = RobotModel(
                robot, adopt(robot, episode.description, f"robot_description of {episode.info.name}").urdf
            )
        elif model is None:
            model = RobotModel.from_config(robot) if is_here else RobotModel(robot, episode.description)
        self.model = model
        series = episode.joint_positions
        self._buffer = JointStateBuffer(max(2, len(series)))
        self.by_stamp: dict[int, RobotState] = {}
        rows = zip(
            series.stamps_ns.tolist(),
            series.values,
            episode.joint_velocities.values,
            episode.joint_openings.tolist(),
            strict=True,
        )
        for stamp_ns, positions, velocities, opening in rows:
            state = RobotState(stamp_ns, positions, velocities, None if math.isnan(opening) else opening)
            self.by_stamp[stamp_ns] = state
            self._buffer.append(state)
        commands = episode.gripper_commands
        self._command_stamps, self._commands = commands.stamps_ns.tolist(), commands.values.tolist()

    def states_around(self, stamp_ns: int) -> tuple[RobotState, ...]:
        """The one state, or the two between which a time lies.

        Raises:
            SensorError: if it lies further off than an observation allows.
        """
        return self._buffer.around(stamp_ns, STATE_TOLERANCE_NS)

    def state_at(self, stamp_ns: int) -> RobotState:
        """The arm's state at a time; errors as of `states_around`."""
        return state_between(stamp_ns, self.states_around(stamp_ns))

    def tcp(self, positions: FloatArray) -> FloatArray:
        """T_base_tcp (4, 4) at (n,) rad."""
        return self.model.forward_kinematics(positions)

    def commanded_opening(self, stamp_ns: int) -> float | None:
        """What the gripper had been told last at a time."""
        index = bisect_right(self._command_stamps, stamp_ns)
        return self._commands[index - 1] if index else None
