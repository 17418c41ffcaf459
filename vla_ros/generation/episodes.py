"""One episode from its plan to its frames: the world, the expert through filter and controller, the tape, the grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from vla_ros.config import load, package_share
from vla_ros.contract import Contract, Rig, find_mismatches, load_rig
from vla_ros.control.config import ControllerConfig
from vla_ros.errors import ConfigError, ContractError
from vla_ros.generation.behaviours import PUSH_AREA_M
from vla_ros.generation.expert import STEP_S, Expert, Travel
from vla_ros.generation.moment import HALF_M, Moment
from vla_ros.generation.motion import Motion
from vla_ros.generation.plan import Disturbance, EpisodePlan
from vla_ros.generation.starts import draw_start
from vla_ros.generation.tape import Tape
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.recording.dataset import EpisodeFrames, Schema
from vla_ros.recording.episode import EpisodeInfo
from vla_ros.recording.recorded import RecordedEpisode
from vla_ros.recording.synchronise import make_frames
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.sim.cameras import CameraRenderer
from vla_ros.sim.content import Setting
from vla_ros.sim.scene import TIMESTEP_S
from vla_ros.sim.tasks import Judge, Task
from vla_ros.sim.world import Snapshot, World
from vla_ros.types import ToolChunk

EXPERT, DISTURBANCE = "expert", "disturbance"
EPOCH_NS = 1_700_000_000_000_000_000
_S = 1_000_000_000
_DECISION_TICKS, _STATE_TICKS = 25, 5
# After the arm was put somewhere: physics alone, then motion that isn't recorded yet, since it starts from rest.
_SETTLE_S, _UNRECORDED_S = 0.1, 0.2
_LEAST_S = 0.8
# An expert that wants to stay where it is for so long has come to the end.
_AT_REST_S, _AT_REST_M, _AT_REST_RAD = 0.7, 0.002, 0.02
# A push isn't labelled past this: where it is to end isn't seen.
_PUSHED_M = 0.075


@dataclass(frozen=True)
class Generated:
    """What came of a plan.

    Attributes:
        plan: it.
        recorded: as a bag would have it.
        is_success: whether the judge saw the task done, judged from where the episode began.
    """

    plan: EpisodePlan
    recorded: RecordedEpisode
    is_success: bool


class Studio:
    """A simulated cell in which episodes are made, one after the other; each depends on its plan alone.

    Args:
        robot: name or YAML file.
        contract: that says when frames are.
        setting: of the scenes.
        rig: name or YAML file; None for the robot's table.
        has_images: without, episodes can be judged, but have no frames.

    Raises:
        ConfigError: for a robot without a gripper.
        ContractError: if the rig doesn't give what the contract needs.
        VlaRosError: for a robot or a rig that isn't known or can't be simulated.
    """

    def __init__(
        self,
        robot: str,
        contract: Contract,
        setting: Setting = "varied",
        rig: str | None = None,
        has_images: bool = True,
    ) -> None:
        self.contract = contract
        self.robot: RobotConfig = load_robot(robot)
        if self.robot.gripper is None:
            raise ConfigError(f"robot {self.robot.name}", "has no gripper to demonstrate with", "choose another")
        self.gripper = self.robot.gripper
        self.rig: Rig = load_rig(rig or f"{self.robot.name}_table")
        mismatches = find_mismatches(self.rig, contract)
        if mismatches:
            raise ContractError("; ".join(mismatches))
        self.model = RobotModel.from_config(self.robot)
        config = package_share() / "config"
        # Motion begins anew in every short episode; the filter's soft start would be in most of what is learned.
        self._safety = replace(load(SafetyConfig, config / "safety.yaml"), soft_start_s=0.05)
        self._controller = load(ControllerConfig, config / "controller.yaml")
        self.world = World(self.robot, self.rig, 0, setting)
        self._renderer = CameraRenderer(self.world.scene) if has_images else None

    def close(self) -> None:
        """Ends drawing."""
        renderer, self._renderer = self._renderer, None
        if renderer is not None:
            renderer.close()

    def make(self, plan: EpisodePlan) -> Generated:
        """Simulates an episode."""
        return _Take(self, plan, self._safety, self._controller, self._renderer).run()

    def take(self, plan: EpisodePlan) -> tuple[Generated, Schema, EpisodeFrames]:
        """Simulates an episode, and puts it on the contract's grid.

        Raises:
            DatasetError: if there is no frame.
        """
        made = self.make(plan)
        schema, frames = make_frames(made.recorded, self.contract, model=self.model)
        return made, schema, frames


def _is_rest(chunk: ToolChunk, moment: Moment) -> bool:
    """Whether a chunk leaves everything as it is."""
    way_m = np.abs(chunk.transforms[:, :3, 3] - chunk.transforms[0, :3, 3]).max()
    turn_rad = np.arccos(
        np.clip((np.trace(chunk.transforms[0, :3, :3].T @ chunk.transforms[-1, :3, :3]) - 1) / 2, -1, 1)
    )
    openings = chunk.openings if chunk.openings is not None else np.zeros(0)
    is_gripper_still = bool((openings == moment.commanded_opening).all())
    return bool(way_m < _AT_REST_M and turn_rad < _AT_REST_RAD and is_gripper_still)


class _Take:
    """One episode being made."""

    def __init__(
        self,
        studio: Studio,
        plan: EpisodePlan,
        safety: SafetyConfig,
        controller: ControllerConfig,
        renderer: CameraRenderer | None,
    ) -> None:
        self._plan, self._world, self._renderer = plan, studio.world, renderer
        self._rng = np.random.default_rng(plan.seed)
        world = studio.world
        world.reset(plan.scene_seed, needed=plan.instruction)
        self._table_m = studio.rig.table_height_m
        self._expert = Expert(plan.instruction, studio.gripper, self._table_m)
        self._judge = Judge(Task(plan.instruction), world.object_poses())
        self._place(studio.model)
        self._start_pose = world.object_poses()[plan.instruction.thing.name]
        self._judged = "running"
        latency_ticks = round(plan.latency_s * controller.rate_hz)
        self._motion = Motion(
            world, studio.model, safety, controller, EPOCH_NS, latency_ticks, self._start.commanded_opening
        )
        self._source = ""
        self._moved_s = 0.0
        info = EpisodeInfo(
            number=plan.number,
            task=plan.text,
            robot=studio.robot.name,
            rig=studio.rig,
            started_ns=EPOCH_NS,
            contracts={EXPERT: studio.contract},
            source=EXPERT,
            operator="vla_ros.generation",
        )
        self._tape = Tape(info, studio.robot)
        self._period_ticks = round(studio.contract.action.period_s * controller.rate_hz)

    def _place(self, model: RobotModel) -> None:
        world = self._world
        home = self._moment(world.tcp_pose(), 1.0, 1.0)
        self._start = draw_start(self._rng, self._plan.start, self._expert, model, home)
        if self._start.kind != "home":
            for name, T in self._start.moved.items():
                world.place_object(name, T)
            world.place_arm(self._start.positions, self._start.opening)
            world.set_gripper_command(self._start.commanded_opening)
            world.step(round(_SETTLE_S / TIMESTEP_S))

    def _moment(self, T_base_tcp: object, opening: float, commanded: float) -> Moment:
        objects = self._world.object_poses()
        return Moment(np.asarray(T_base_tcp), opening, commanded, objects, self._expert.width, self._table_m)

    def run(self) -> Generated:
        plan, motion, tape = self._plan, self._motion, self._tape
        is_whole = self._start.kind == "home"
        first = 0 if is_whole else round(_UNRECORDED_S / motion.path.dt_s / _DECISION_TICKS) * _DECISION_TICKS
        ticks = first + round(plan.duration_s / motion.path.dt_s)
        ticks -= ticks % _DECISION_TICKS
        exposure_ticks = round(plan.exposure_s / motion.path.dt_s)
        exposed: Snapshot = self._world.snapshot()
        for tick in range(ticks + 1):
            time_s = (tick - first) * motion.path.dt_s
            if tick % _DECISION_TICKS == 0:
                self._decide(time_s, tick >= first)
            if tick >= first and tick % _STATE_TICKS == 0:
                tape.take_state(motion)
            if tick >= first and (tick - first) % self._period_ticks == 0:
                if self._renderer is not None:
                    is_late = exposure_ticks > 0 and tick > first
                    images = self._renderer.submit(exposed if is_late else self._world.snapshot())
                    tape.take_images(motion.now_ns, images, self._world.truth())
                if self._is_over(time_s):
                    break
            motion.tick()
            tape.take_limits(motion)
            if (tick + 1 + exposure_ticks - first) % self._period_ticks == 0:
                exposed = self._world.snapshot()
        success = self._judged == "success"
        note = f"{self._start.kind} start, scene {plan.scene_seed}"
        return Generated(plan, tape.episode("success" if success else "unlabelled", note), success)

    def _is_over(self, time_s: float) -> bool:
        world = self._world
        opening = self._motion.measured.gripper_opening
        if time_s < _LEAST_S:
            return False
        if self._judged == "running":
            self._judged = self._judge.update(world.object_poses(), world.tcp_pose(), opening, world.time_s)
        if self._plan.instruction.verb == "push":
            moved = world.object_poses()[self._plan.instruction.thing.name][:2, 3] - self._start_pose[:2, 3]
            if float(np.linalg.norm(moved)) > _PUSHED_M:
                return True
        return self._judged == "failure" or time_s > self._moved_s + _AT_REST_S

    def _decide(self, time_s: float, is_recorded: bool) -> None:
        motion = self._motion
        now = next((d for d in self._plan.disturbances if d.start_s <= time_s < d.start_s + d.duration_s), None)
        source = EXPERT if now is None else DISTURBANCE
        is_new = source != self._source
        if is_new:
            if self._source == DISTURBANCE:
                self._move_object()
            self._source = source
            motion.path.filter.select_source(source, motion.now_ns)
            if is_recorded or source == EXPERT:
                self._tape.take_source(motion.now_ns, source)
        if now is not None:
            if is_new:
                self._offer(self._wrong(now), is_recorded)
            return
        T, twist = motion.commanded()
        opening = motion.measured.gripper_opening
        moment = self._moment(T, 1.0 if opening is None else opening, motion.opening)
        if is_new and time_s > 0.0:
            twist = np.zeros(6)
        chunk = self._expert.chunk(Travel(moment, twist), motion.now_ns, EXPERT)
        if not _is_rest(chunk, moment):
            self._moved_s = max(0.0, time_s)
        self._offer(chunk, is_recorded)

    def _offer(self, chunk: ToolChunk, is_recorded: bool) -> None:
        if not self._motion.offer(chunk) and is_recorded:
            self._tape.take_chunk(self._motion.now_ns, chunk)

    def _wrong(self, disturbance: Disturbance) -> ToolChunk:
        """Somebody leads the tool aside."""
        motion = self._motion
        T, _ = motion.commanded()
        steps = max(2, math.ceil(disturbance.duration_s / STEP_S) + 3)
        times_s = STEP_S * np.arange(steps, dtype=np.float64)
        shares = np.clip(times_s / disturbance.duration_s, 0.0, 1.0)
        shares = shares * shares * (3.0 - 2.0 * shares)
        poses = np.repeat(T[None], steps, axis=0)
        poses[:, :3, 3] += shares[:, None] * np.array(disturbance.offset_m)
        poses[:, 2, 3] = np.maximum(poses[:, 2, 3], self._table_m + 0.012)
        for pose, share in zip(poses, shares, strict=True):
            pose[:3, :3] = rotvec_to_matrix(share * np.array(disturbance.turn_rad)) @ T[:3, :3]
        opening = motion.opening if disturbance.opening is None else disturbance.opening
        return ToolChunk(motion.now_ns, "absolute", poses, np.full(steps, opening), times_s, DISTURBANCE)

    def _move_object(self) -> None:
        """Puts what is named elsewhere, if nobody holds it and there is room."""
        disturbance, name = self._plan.disturbances[0], self._plan.instruction.thing.name
        poses = self._world.object_poses()
        T = poses[name].copy()
        p_tcp = self._world.tcp_pose()[:3, 3]
        is_near = float(np.linalg.norm(T[:3, 3] - p_tcp)) < 0.07
        if not disturbance.is_object_moved or is_near or T[2, 3] > self._table_m + HALF_M + 0.005:
            return
        (x_low, x_high), (y_low, y_high) = PUSH_AREA_M
        for _ in range(20):
            p = T[:2, 3] + self._rng.uniform(-0.09, 0.09, 2)
            others = [pose[:2, 3] for other, pose in poses.items() if other != name] + [p_tcp[:2]]
            is_in = x_low + 0.04 < p[0] < x_high - 0.04 and y_low + 0.04 < p[1] < y_high - 0.04
            if is_in and all(math.dist(p, other) > 0.1 for other in others):
                T[:2, 3] = p
                turn = rotvec_to_matrix(np.array([0.0, 0.0, self._rng.uniform(-math.pi, math.pi)]))
                T[:3, :3] = turn @ T[:3, :3]
                self._world.place_object(name, T)
                return
