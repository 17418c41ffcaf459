"""`vla-ros replay` through a running stack: the arm goes along the recorded path, and whoever stops it is named."""

from __future__ import annotations

import contextlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")
pytest.importorskip("h5py")

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from vla_ros import cli
from vla_ros.contract import load_contract
from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.geometry.rotations import matrix_to_quat_xyzw
from vla_ros.nodes import messages
from vla_ros.recording.dataset import ACTION, JOINT_POSITIONS, STATE, Column, EpisodeFrames, ImageColumn, Schema
from vla_ros.recording.formats.registry import load_format
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]

PATH_TOLERANCE_MM = 5.0


@pytest.fixture(scope="module")
def model() -> RobotModel:
    return RobotModel.from_config(load_robot("panda"))


@pytest.fixture(scope="module")
def dataset(model, tmp_path_factory) -> Path:
    """A dataset with one episode: 2 s along a bow of 16 cm, the gripper closing in the middle."""
    times_s = np.arange(1, 21) * 0.1
    phase = 0.5 * (1.0 - np.cos(0.5 * np.pi * times_s))
    T = np.tile(model.forward_kinematics(model.home), (20, 1, 1))
    T[:, 1, 3] += 0.15 * phase
    T[:, 2, 3] -= 0.05 * np.sin(np.pi * phase)
    action = np.concatenate(
        [T[:, :3, 3], matrix_to_quat_xyzw(T[:, :3, :3]), np.where(times_s < 1.0, 1.0, 0.0)[:, None]], 1
    )
    columns = {ACTION: action, STATE: action, JOINT_POSITIONS: np.tile(model.home + 0.05, (20, 1))}
    columns = {name: value.astype(np.float32) for name, value in columns.items()}
    kinds = tuple(Column(name, "float32", value.shape[1:]) for name, value in columns.items())
    images = (ImageColumn("observation.images.base", 24, 32, "base"),)
    schema = Schema(10.0, "panda", kinds, images, load_contract("tool_delta_visual"))

    def pictures() -> Any:
        return ((images[0].name, frame, np.full((24, 32, 3), frame, dtype=np.uint8)) for frame in range(20))

    folder: Path = tmp_path_factory.mktemp("dataset") / "bow"
    writer = load_format("hdf5").create(folder, schema, {})
    writer.add(EpisodeFrames("bow_0", columns, ("bow",) * 20, pictures))
    writer.close()
    return folder


class Stage:
    """A simulated arm with its motion path, and somebody who looks on."""

    def __init__(self, processes: Any, peer: Any) -> None:
        self.processes, self.peer = processes, peer
        self.commands: list[JointState] = peer.hear(JointState, "joint_command")
        self.verdicts: list[DiagnosticArray] = peer.hear(DiagnosticArray, "safety/verdict")
        self.stack = processes.start_command("launch", "replay", "robot:=panda")

    def verdict(self) -> tuple[str, str]:
        """State of the filter, and who is selected."""
        status = self.verdicts[-1].status[0]
        return status.message, next(item.value for item in status.values if item.key == "source")


@pytest.fixture(scope="module")
def stage(module_processes, make_module_peer, patience) -> Any:
    module_processes.close()
    stage = Stage(module_processes, make_module_peer("person"))
    patience(lambda: len(stage.commands) > 100 and stage.verdicts, "commands", 60.0)
    yield stage
    assert stage.stack.end() == 0, stage.stack.text


def replay(dataset: Path, *words: str) -> tuple[int, str]:
    """Exit code and last line of the command, in this process: its start would cost more than what it does."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = cli.main(["replay", "0", "--from", f"hdf5:{dataset}", "--in", "arm", "--json", *words])
    return code, text.getvalue().strip().splitlines()[-1]


def test_dry_run_tells_from_where_the_arm_is_and_moves_nothing(stage, dataset) -> None:
    before = len(stage.commands)
    code, text = replay(dataset)
    assert code == 0, text
    told = json.loads(text)
    assert (told["moved"], told["completed"], told["limits"]) == ("nothing", True, {})
    assert told["start_distance_rad"] == pytest.approx(0.05, abs=1e-3)
    assert told["path_length_m"] == pytest.approx(0.18, abs=0.01)
    speeds = np.array([message.velocity for message in list(stage.commands)[before:]])
    assert np.abs(speeds).max() == 0.0


def test_arm_goes_along_the_recorded_path_within_5_mm_and_holds_for_nobody_afterwards(
    stage, dataset, model, patience
) -> None:
    before = len(stage.commands)
    code, text = replay(dataset, "--arm", "true")
    assert code == 0, text
    told = json.loads(text)
    assert (told["moved"], told["completed"], told["problem"]) == ("arm", True, "")
    assert told["path_error_mm"] < PATH_TOLERANCE_MM
    assert told["tracking_error_max_mm"] < PATH_TOLERANCE_MM
    patience(lambda: stage.verdict() == ("holding", ""), "nobody to be selected")
    sent = list(stage.commands)[before:]
    # By what was sent alone: from home by the posture to the end of the bow, within all limits.
    end = model.forward_kinematics(np.array(sent[-1].position))
    assert end[1, 3] == pytest.approx(0.15, abs=2e-3)
    stamps = np.array([messages.to_ns(message.header.stamp) for message in sent])
    report = judge_limits(stamps, np.array([message.position for message in sent]), model)
    assert report.is_clean, [str(item) for item in report.first_violations.values()]


def test_stop_in_the_midst_ends_the_replay_with_its_reason(stage, dataset, patience) -> None:
    with ThreadPoolExecutor() as pool:
        running = pool.submit(replay, dataset, "--arm", "true", "--speed", "0.3")
        patience(lambda: running.done() or stage.verdict() == ("running", "replay"), "the replay to run")
        assert stage.peer.call(Trigger, "safety/stop").success
    code, text = running.result()
    assert code == 1, text
    told = json.loads(text)
    assert not told["completed"]
    assert "stopped" in told["problem"]
    code, text = replay(dataset, "--arm", "true")
    assert code == 2, text
    assert "call safety/reset" in text
    assert stage.peer.call(Trigger, "safety/reset").success
