"""The inference thread without cameras: what a policy is told, what it may do wrong, whose answers are published."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy

from vla_ros.contract import Contract, load_contract, load_rig
from vla_ros.errors import ChunkError, ContractError, InstructionError
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.nodes.inference import TIMES, Inference
from vla_ros.nodes.resident_policy import LoadedPolicy, ResidentPolicy
from vla_ros.nodes.runtime import now_ns
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.registry import PolicyConfig
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.types import ActionChunk, CameraFrame, CameraModel, Observation, RobotState

pytestmark = pytest.mark.ros

ROBOT = load_robot("panda")
STEPS = 3


class Told:
    """A policy that writes down what it is told, and does what a test says."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.contexts: list[InferenceContext] = []
        self.begun: list[str] = []
        self.act: Callable[[], None] = lambda: None

    def reset(self, task: str, seed: int) -> None:
        if task == "nonsense":
            raise InstructionError(task, "it is none", "say another")
        self.begun.append(task)

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        self.contexts.append(context)
        self.act()
        actions = np.zeros((STEPS, 7))
        actions[:, 0] = 0.01 * np.arange(1, STEPS + 1)
        actions[:, 5], actions[:, 6] = 0.2, 1.0
        return ActionChunk(actions)


class Stage:
    """An inference thread whose camera shows a new image whenever it looks."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("inference")
        self.events: list[dict[str, Any]] = []
        self.inference = Inference(self.node, self._look, lambda event: self.events.append(dict(event)))
        self.model = RobotModel.from_config(ROBOT)
        self.one, self.two = self._resident("one"), self._resident("two")
        self.inference.start()
        self.inference.select(self.one[1])

    def _resident(self, name: str) -> tuple[Told, ResidentPolicy]:
        contract = load_contract("tool_delta_visual")
        policy = Told(contract)
        config = PolicyConfig(name, "told", contract.name, rate_hz=50.0)
        states = JointStateBuffer(16)
        resident = ResidentPolicy(self.node, LoadedPolicy(config, policy, contract), ROBOT, self.model, states)
        sent: list[Any] = []
        resident._tool_chunks = type("Publisher", (), {"publish": staticmethod(sent.append)})()
        resident.sent = sent  # type: ignore[attr-defined]
        return policy, resident

    def _look(self) -> None:
        stamp_ns = now_ns(self.node) - 5_000_000
        camera = CameraModel(8, 8, np.diag([8.0, 8.0, 1.0]))
        for _, resident in (self.one, self.two):
            resident.builder.add_state(RobotState(stamp_ns, self.model.home, np.zeros(7), 1.0))
            for name in ("base", "wrist"):
                frame = CameraFrame(stamp_ns, np.zeros((8, 8, 3), np.uint8), camera, np.eye(4))
                resident.builder.add_frame(name, frame)


@pytest.fixture
def stage(ros_domain: int) -> Iterator[Stage]:
    rclpy.init(args=[])
    stage = Stage()
    yield stage
    stage.inference.close()
    stage.node.destroy_node()
    rclpy.try_shutdown()


def test_policy_is_told_what_of_its_last_answer_is_executed(stage: Stage, patience) -> None:
    policy, _ = stage.one
    stage.inference.set_task("first")
    stage.inference.set_active(True)
    patience(lambda: len(policy.contexts) > 3, "answers")
    assert policy.contexts[0].committed is None
    committed = policy.contexts[1].committed
    assert committed is not None
    assert committed.frame == "absolute"
    home = stage.model.forward_kinematics(stage.model.home)
    expected = home @ np.eye(4)
    expected[0, 3] += 0.02
    expected[:3, :3] = rotvec_to_matrix(np.array([0.0, 0.0, 0.2])) @ home[:3, :3]
    np.testing.assert_allclose(committed.transforms[1], expected, atol=1e-12)
    assert policy.contexts[3].expected_delay_s > 0.0
    # 50 answers a second are less than one step of 0.1 s each.
    assert policy.contexts[1].execution_horizon_steps == 1
    stage.inference.set_task("second")
    patience(lambda: policy.begun == ["first", "second"] and policy.contexts[-1].committed is not None, "the second")
    begin = next(k for k, context in enumerate(policy.contexts[1:], 1) if context.committed is None)
    assert begin > 1


def test_answer_that_was_begun_for_another_policy_is_not_published(stage: Stage, patience) -> None:
    policy, resident = stage.one
    is_asked, may_answer = threading.Event(), threading.Event()

    def wait() -> None:
        is_asked.set()
        may_answer.wait(10.0)

    policy.act = wait
    stage.inference.set_task("task")
    stage.inference.set_active(True)
    assert is_asked.wait(10.0)
    stage.inference.select(stage.two[1])
    may_answer.set()
    patience(lambda: len(stage.two[1].sent) > 2, "the other's chunks")
    assert not resident.sent
    assert stage.two[0].begun == ["task"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ChunkError("reply has 3 columns"), "reply has 3 columns"),
        (RuntimeError("oops"), "failed to answer"),
        (SystemExit("oops"), "failed to answer"),
    ],
)
def test_policy_that_fails_holds_with_the_reason_and_is_asked_again(stage: Stage, patience, error, words) -> None:
    policy, resident = stage.one

    def fail() -> None:
        raise error

    policy.act = fail
    stage.inference.set_task("task")
    stage.inference.set_active(True)
    patience(lambda: len(policy.contexts) > 2, "it to be asked again")
    assert words in stage.inference.status
    assert not resident.sent
    policy.act = lambda: None
    patience(lambda: resident.sent, "chunks")


def test_fault_while_observing_holds_with_the_reason_and_is_not_the_end(stage: Stage, patience) -> None:
    def fail() -> None:
        raise RuntimeError("oops")

    look, stage.inference._take_frames = stage.inference._take_frames, fail
    stage.inference.set_task("task")
    stage.inference.set_active(True)
    patience(lambda: "failed to be shown" in stage.inference.status, "the reason")
    stage.inference._take_frames = look
    patience(lambda: stage.one[1].sent, "chunks")


def test_deactivation_waits_for_the_chunk_on_its_way_so_that_none_comes_after(stage: Stage, patience) -> None:
    is_deactivated = threading.Event()
    was_deactivated: list[bool] = []

    def deactivate() -> None:
        stage.inference.set_active(False)
        is_deactivated.set()

    def publish(_message: object) -> None:
        threading.Thread(target=deactivate, daemon=True).start()
        was_deactivated.append(is_deactivated.wait(0.3))

    stage.one[1]._tool_chunks = type("Publisher", (), {"publish": staticmethod(publish)})()  # type: ignore[assignment]
    stage.inference.set_task("task")
    stage.inference.set_active(True)
    assert is_deactivated.wait(30.0)
    # Another chunk may come before the waiting thread has its turn, but none after.
    assert was_deactivated
    assert not any(was_deactivated)
    published = len(was_deactivated)
    stage.inference.wait_until_idle()
    time.sleep(0.1)
    assert len(was_deactivated) == published


def test_failure_of_an_inference_that_is_over_is_not_told_of_a_node_that_is_not_active(stage: Stage) -> None:
    is_asked, may_fail = threading.Event(), threading.Event()

    def fail() -> None:
        is_asked.set()
        may_fail.wait(10.0)
        raise ChunkError("too late")

    stage.one[0].act = fail
    stage.inference.set_task("task")
    stage.inference.set_active(True)
    assert is_asked.wait(30.0)
    stage.inference.set_active(False)
    may_fail.set()
    stage.inference.wait_until_idle()
    assert stage.inference.status == "not active"


def test_task_that_cannot_be_read_is_told_and_the_next_one_is_begun(stage: Stage, patience) -> None:
    policy, resident = stage.one
    stage.inference.set_active(True)
    stage.inference.set_task("nonsense")
    patience(lambda: [event for event in stage.events if event["event"] == "task_refused"], "the refusal")
    assert "it is none" in stage.inference.status
    stage.inference.set_task("task")
    patience(lambda: resident.sent, "chunks")
    assert policy.begun == ["task"]


def test_times_are_split_and_nothing_is_asked_while_inactive(stage: Stage, patience) -> None:
    policy, resident = stage.one
    stage.inference.set_task("task")
    assert not policy.contexts
    stage.inference.set_active(True)
    patience(lambda: len(resident.sent) > 5, "chunks")
    times = {name: stage.inference.times_s[name].at(0.5) for name in TIMES}
    assert all(np.isfinite(value) and value >= 0.0 for value in times.values())
    assert times["age"] >= times["infer"]
    stage.inference.set_active(False)
    stage.inference.wait_until_idle()
    asked = len(policy.contexts)
    patience(lambda: stage.inference.status == "not active", "it to be silent")
    assert len(policy.contexts) == asked


def test_loading_refuses_a_rig_without_the_camera(tmp_path) -> None:
    rig = load_rig("panda_table")
    rig = replace(rig, cameras={"wrist": rig.cameras["wrist"]})
    with pytest.raises(ContractError, match="'base' comes from camera 'base'"):
        LoadedPolicy.load("scripted_visual", rig, "")
