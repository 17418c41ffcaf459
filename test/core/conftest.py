"""What tests of recordings share: an episode as its bag would say it, made of formulas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

START_NS = 1_763_800_000_000_000_000


def tool_motion(T_home: Any, times_s: Any) -> Any:
    """(n, 4, 4): a figure of some decimetres about a pose, with turns, in 4 s; at rest at both ends of it."""
    from scipy.spatial.transform import Rotation

    T = np.tile(T_home, (len(times_s), 1, 1))
    phase = np.clip(times_s / 4.0, 0.0, 1.0)
    angle = 2.0 * np.pi * phase**3 * (10.0 - 15.0 * phase + 6.0 * phase**2)
    T[:, 0, 3] += 0.06 * np.sin(angle)
    T[:, 1, 3] += 0.08 * (1.0 - np.cos(angle))
    T[:, 2, 3] += 0.04 * np.sin(2.0 * angle)
    turns = np.stack([0.2 * np.sin(angle), 0.1 * np.sin(2.0 * angle), 0.4 * np.sin(angle)], axis=1)
    T[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix() @ T_home[:3, :3]
    return T


@pytest.fixture(scope="session")
def synthetic_episode() -> Callable[..., Any]:
    """Makes a `RecordedEpisode` of a robot: 4 s of `tool_motion`, gripper closed from 1.5 to 2.5 s, two cameras."""
    from vla_ros.config import plain
    from vla_ros.contract import load_contract, load_rig
    from vla_ros.recording import recorded as r
    from vla_ros.recording.episode import EpisodeInfo
    from vla_ros.robots.config import load_robot
    from vla_ros.robots.model import RobotModel
    from vla_ros.types import CameraModel, MotionState

    def make(robot: str = "panda", **changes: Any) -> Any:
        config = load_robot(robot)
        model = RobotModel.from_config(config)
        times_s = np.arange(0.0, 4.0 + 1e-9, 0.004)
        stamps = START_NS + np.round(times_s * 1e9).astype(np.int64)
        poses = tool_motion(model.forward_kinematics(model.home), times_s)
        joints = _joints_along(model, poses)
        openings = np.where((times_s >= 1.5) & (times_s < 2.5), 0.0, 1.0)
        nothing = np.zeros(0, dtype=np.int64)
        lens = CameraModel(32, 24, np.array([[25.0, 0.0, 15.5], [0.0, 25.0, 11.5], [0.0, 0.0, 1.0]]))
        cameras = {
            name: r.RecordedCamera(
                name, f"/camera/{name}/image", stamps[::12] + offset, 32, 24, "rgb8", lens, np.eye(4), _pictures(shade)
            )
            for name, offset, shade in (("base", 0, 40), ("wrist", 3_000_000, 90))
        }
        info = EpisodeInfo(
            7,
            "pick up the <red> block",
            robot,
            load_rig(f"{robot}_table"),
            START_NS,
            contracts={"scripted_visual": load_contract("tool_delta_visual")},
            outcome="success",
            ended_ns=int(stamps[-1]),
            source="scripted_visual",
            operator="Ada",
            note="first & only",
            robot_config=plain(dataclasses.asdict(config)),
            versions={"vla_ros": "0.5.0"},
        )
        verdicts = (
            r.RecordedVerdict(int(stamps[0]), MotionState.RUNNING, "scripted_visual", {}),
            r.RecordedVerdict(int(stamps[250]), MotionState.RUNNING, "scripted_visual", {"workspace": "too low"}),
            r.RecordedVerdict(int(stamps[275]), MotionState.RUNNING, "scripted_visual", {}),
            r.RecordedVerdict(int(stamps[500]), MotionState.RUNNING, "teleop", {}),
            r.RecordedVerdict(int(stamps[750]), MotionState.HOLDING, "", {"holding": "source is now none"}),
        )
        events = (
            r.RecordedEvent(int(stamps[0]), "start", {"event": "start"}),
            r.RecordedEvent(
                int(stamps[500]), "intervention_start", {"event": "intervention_start", "source": "teleop"}
            ),
            r.RecordedEvent(int(stamps[750]), "intervention_end", {"event": "intervention_end", "source": "teleop"}),
            r.RecordedEvent(int(stamps[-1]), "success", {"event": "success"}),
        )
        values = {
            "info": info,
            "robot": config,
            "description": "",
            "joint_positions": r.Series(stamps, joints),
            "joint_velocities": r.Series(stamps, np.gradient(joints, 0.004, axis=0)),
            "joint_openings": openings,
            "gripper_openings": r.Series(stamps[::5], openings[::5]),
            "gripper_commands": r.Series(stamps[[0, 375, 625]], np.array([1.0, 0.0, 1.0])),
            "tool_targets": r.TargetSeries(stamps, poses, openings),
            "joint_targets": r.TargetSeries(nothing, np.zeros((0, joints.shape[1])), np.zeros(0)),
            "joint_commands": r.Series(stamps, joints),
            "chunks": (),
            "verdicts": verdicts,
            "events": events,
            "tasks": (r.RecordedTask(int(stamps[0]), info.task),),
            "observed": (),
            "cameras": cameras,
            "findings": (r.Finding("gap", "camera/base/image", "2 images missing at 1.2 s"),),
        }
        return r.RecordedEpisode(**{**values, **changes})

    return make


def _joints_along(model: Any, poses: Any) -> Any:
    """(n, joints): inverse kinematics by Newton's method from home on."""
    from vla_ros.geometry.se3 import pose_error

    q, found = model.home.copy(), []
    for T in poses:
        for _ in range(3):
            at, J = model.tcp_pose_and_jacobian(q)
            q = q + J.T @ np.linalg.solve(J @ J.T + 1e-9 * np.eye(6), pose_error(at, T))
        found.append(q.copy())
    return np.array(found)


def _pictures(shade: int) -> Callable[[Any], Iterator[tuple[int, Any]]]:
    def pictures(indices: Any) -> Iterator[tuple[int, Any]]:
        for index in indices.tolist():
            image = np.full((24, 32, 3), shade, dtype=np.uint8)
            image[:, : (index * 32) // 90, 0] = 250
            yield index, image

    return pictures
