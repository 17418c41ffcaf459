"""A simulated episode as a recorder would have heard it, kept in memory: the same values as in a bag, without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace

import numpy as np

from vla_ros.contract import Rig
from vla_ros.generation.motion import Motion
from vla_ros.geometry.rotations import rpy_to_matrix
from vla_ros.geometry.se3 import make_pose
from vla_ros.recording.episode import EpisodeInfo, Outcome
from vla_ros.recording.recorded import (
    RecordedCamera,
    RecordedChunk,
    RecordedEpisode,
    RecordedEvent,
    RecordedTask,
    RecordedVerdict,
    Series,
    StampArray,
    TargetSeries,
)
from vla_ros.robots.config import RobotConfig
from vla_ros.sim.cameras import simulated_camera
from vla_ros.types import FloatArray, ImageArray, ToolChunk

Images = Future[dict[str, ImageArray]]


class Tape:
    """Takes what happens, moment by moment, and gives the episode at the end.

    Args:
        info: of the episode, open.
        robot: in it.
    """

    def __init__(self, info: EpisodeInfo, robot: RobotConfig) -> None:
        self._info, self._robot = info, robot
        self._stamps_ns: list[int] = []
        self._positions: list[FloatArray] = []
        self._velocities: list[FloatArray] = []
        self._openings: list[float] = []
        self._commands: list[FloatArray] = []
        self._targets: list[tuple[int, FloatArray, float]] = []
        self._told: list[tuple[int, float]] = []
        self._limits: dict[str, str] = {}
        self._verdicts: list[RecordedVerdict] = []
        self._events: list[RecordedEvent] = []
        self._chunks: list[RecordedChunk] = []
        self._truth: dict[str, list[FloatArray]] = {}
        self._image_stamps_ns: list[int] = []
        self._images: list[Images] = []

    def take_source(self, stamp_ns: int, source: str) -> None:
        """Who has the arm from now on."""
        values = {"event": "source", "source": source, "stamp_ns": stamp_ns}
        self._events.append(RecordedEvent(stamp_ns, "source", values))

    def take_chunk(self, stamp_ns: int, chunk: ToolChunk) -> None:
        """What its source wants."""
        self._chunks.append(RecordedChunk(stamp_ns, chunk))

    def take_limits(self, motion: Motion) -> None:
        """Every tick: what acted in it is told with the next state."""
        verdict = motion.verdict
        if verdict is not None:
            self._limits |= {item.limit: item.reason for item in verdict.interventions}

    def take_state(self, motion: Motion) -> None:
        """What was measured, commanded and let through at a tick."""
        now_ns, measured = motion.now_ns, motion.measured
        opening = np.nan if measured.gripper_opening is None else measured.gripper_opening
        self._stamps_ns.append(now_ns)
        self._positions.append(measured.positions)
        self._velocities.append(measured.velocities)
        self._openings.append(opening)
        self._commands.append(measured.positions if motion.command is None else motion.command.positions)
        if motion.target is not None:
            wanted = motion.target.gripper_opening
            self._targets.append((now_ns, motion.target.T_base_tcp, np.nan if wanted is None else wanted))
        if not self._told or self._told[-1][1] != motion.opening:
            self._told.append((now_ns, motion.opening))
        safety = motion.path.filter
        self._verdicts.append(RecordedVerdict(now_ns, safety.state, safety.source, self._limits))
        self._limits = {}

    def take_images(self, stamp_ns: int, images: Images, truth: Mapping[str, FloatArray]) -> None:
        """Images that are being drawn, and the truth of that moment."""
        self._image_stamps_ns.append(stamp_ns)
        self._images.append(images)
        for name, T in truth.items():
            self._truth.setdefault(name, []).append(T)

    def episode(self, outcome: Outcome, note: str) -> RecordedEpisode:
        """All of it."""
        stamps = np.array(self._stamps_ns, dtype=np.int64)
        joints = len(self._robot.joint_names)
        targets = self._targets
        info = replace(self._info, note=note).ended(outcome, int(stamps[-1]))
        image_stamps = np.array(self._image_stamps_ns, dtype=np.int64)
        told_ns, told = zip(*self._told, strict=True)
        return RecordedEpisode(
            info=info,
            robot=self._robot,
            description="",
            joint_positions=Series(stamps, np.array(self._positions)),
            joint_velocities=Series(stamps, np.array(self._velocities)),
            joint_openings=np.array(self._openings),
            gripper_openings=Series(stamps, np.array(self._openings)),
            gripper_commands=Series(np.array(told_ns, dtype=np.int64), np.array(told)),
            tool_targets=TargetSeries(
                np.array([stamp for stamp, _, _ in targets], dtype=np.int64),
                np.array([T for _, T, _ in targets]).reshape(-1, 4, 4),
                np.array([opening for _, _, opening in targets]),
            ),
            joint_targets=TargetSeries(np.zeros(0, np.int64), np.zeros((0, joints)), np.zeros(0)),
            joint_commands=Series(stamps, np.array(self._commands)),
            chunks=tuple(self._chunks),
            verdicts=tuple(self._verdicts),
            events=tuple(self._events),
            tasks=(RecordedTask(info.started_ns, info.task),),
            observed=(),
            cameras={name: self._camera(info.rig, name, image_stamps) for name in info.rig.cameras},
            truth={name: Series(image_stamps, np.array(poses)) for name, poses in self._truth.items()},
        )

    def _camera(self, rig: Rig, name: str, stamps_ns: StampArray) -> RecordedCamera:
        camera, images = rig.cameras[name], self._images

        def open_images(wanted: StampArray) -> Iterator[tuple[int, ImageArray]]:
            return ((int(index), images[int(index)].result()[name]) for index in wanted)

        mount = make_pose(np.array(camera.mount.position_m), rpy_to_matrix(np.array(camera.mount.rpy_rad)))
        model = simulated_camera(camera)
        return RecordedCamera(
            name, camera.topic, stamps_ns, camera.width, camera.height, "rgb8", model, mount, open_images
        )
