"""gripper_node over DDS, against servers that behave as franka_gripper and ros2_control's gripper controllers do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray
from std_srvs.srv import Trigger

from vla_ros.config import find_config
from vla_ros.nodes.message_packages import missing_package

pytestmark = pytest.mark.ros

KNUCKLE = "robotiq_85_left_knuckle_joint"
CLOSED_RAD = 0.7929


def robot_with(folder: Path, robot: str, **gripper: Any) -> str:
    """A robot's YAML whose driver.gripper is another."""
    data = yaml.safe_load(find_config("robots", robot).read_text())
    data["driver"]["gripper"] |= gripper
    path = folder / f"{robot}.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


class Told:
    """What gripper_node says of itself."""

    def __init__(self, peer: Any) -> None:
        self._heard = peer.hear(DiagnosticArray, "/diagnostics")

    def text(self) -> str:
        found = [status for message in self._heard for status in message.status if status.name == "/gripper_node"]
        return str(found[-1].message) if found else ""


class FakeGripper:
    """An action server's gripper: 1.0 is open; a goal ends when it is there, on an object, or when it is canceled.

    Args:
        peer: node in the test.
        servers: by action name: type, and what makes a target opening of a goal (None to go to 1).
        fill: writes the end into a result message: whether it got there.
        states: topic and joint of its states, and position of an opening.
    """

    def __init__(self, peer: Any, servers: Any, fill: Any, states: tuple[str, str, Any]) -> None:
        from rclpy.action import ActionServer, CancelResponse

        self.goals: list[tuple[str, Any]] = []
        self.opening, self.object_at, self.at_once, self.most_at_once = 1.0, 0.0, 0, 0
        self._active: dict[int, tuple[Any, float, Any]] = {}
        topic, self._joint, self._position = states
        self._publisher = peer.speak(JointState, topic)
        self._node = peer.node
        self._servers = [
            ActionServer(
                peer.node,
                kind,
                name,
                execute_callback=self._executor(name, kind, target, fill),
                cancel_callback=lambda _handle: CancelResponse.ACCEPT,
            )
            for name, (kind, target) in servers.items()
        ]
        peer.node.create_timer(0.02, self._tick)

    def _executor(self, name: str, kind: Any, target: Any, fill: Any) -> Any:
        from rclpy.task import Future

        async def execute(handle: Any) -> Any:
            self.goals.append((name, handle.request))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            done = Future()
            self._active[id(handle)] = (handle, target(handle.request), done)
            is_there = await done
            del self._active[id(handle)]
            self.at_once -= 1
            result = kind.Result()
            fill(result, is_there)
            if handle.is_cancel_requested:
                handle.canceled()
            elif is_there:
                handle.succeed()
            else:
                handle.abort()
            return result

        return execute

    def _tick(self) -> None:
        for handle, target, done in list(self._active.values()):
            if done.done():
                continue
            if handle.is_cancel_requested:
                done.set_result(False)
                continue
            stop = max(target, min(self.object_at, self.opening))
            self.opening += min(max(stop - self.opening, -0.025), 0.025)
            if abs(self.opening - stop) < 1e-9:
                done.set_result(stop == target)
        message = JointState(name=["other", self._joint], position=[9.0, self._position(self.opening)])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def franka(peer: Any) -> FakeGripper:
    actions = pytest.importorskip("franka_msgs.action")

    def fill(result: Any, is_there: bool) -> None:
        result.success = is_there

    def target(goal: Any) -> float:
        return float(goal.width) / 0.08

    def grasp(goal: Any) -> float:
        # libfranka: an object of a width within epsilon of the wished one is grasped.
        return (
            gripper.object_at
            if target(goal) < gripper.object_at < target(goal) + goal.epsilon.outer / 0.08
            else target(goal)
        )

    servers = {
        "franka_gripper/move": (actions.Move, target),
        "franka_gripper/grasp": (actions.Grasp, grasp),
        "franka_gripper/homing": (actions.Homing, lambda _goal: 1.0),
    }
    states = ("franka_gripper/joint_states", "fr3_finger_joint1", lambda opening: 0.04 * opening)
    gripper = FakeGripper(peer, servers, fill, states)
    return gripper


def robotiq(peer: Any, kind: str) -> FakeGripper:
    action = getattr(pytest.importorskip("control_msgs.action"), kind)

    def fill(result: Any, is_there: bool) -> None:
        result.reached_goal, result.stalled = is_there, not is_there

    def target(goal: Any) -> float:
        position = goal.command.position if kind == "GripperCommand" else goal.command.position[0]
        return 1.0 - float(position) / CLOSED_RAD

    states = ("joint_states", KNUCKLE, lambda opening: CLOSED_RAD * (1.0 - opening))
    return FakeGripper(peer, {"robotiq_gripper_controller/gripper_cmd": (action, target)}, fill, states)


def test_positions_go_to_a_forward_controller_when_there_is_one(make_peer, processes, patience, tmp_path) -> None:
    robot = robot_with(tmp_path, "ur5e", kind="position", name="gripper_controller/commands")
    peer = make_peer("driver")
    told, openings = Told(peer), peer.hear(JointState, "gripper/state")
    wish = peer.speak(Float64, "gripper/command")
    states = peer.speak(JointState, "joint_states")
    node = processes.start_node("gripper_node", robot=robot, hardware="mock")
    peer.matched(wish).publish(Float64(data=0.25))
    patience(lambda: "nobody hears /gripper_controller/commands" in told.text(), "the missing controller by name")
    heard = peer.hear(Float64MultiArray, "gripper_controller/commands")
    patience(lambda: heard, "the wish of before, now that somebody hears it")
    assert list(heard[0].data) == pytest.approx([0.75 * CLOSED_RAD])
    wish.publish(Float64(data=-2.0))
    patience(lambda: len(heard) == 2, "the wish out of range")
    assert list(heard[1].data) == pytest.approx([CLOSED_RAD])
    patience(lambda: "gripper/command is -2, taken for 0" in node.text, "that it was out of range")
    wish.publish(Float64(data=float("nan")))
    states.publish(JointState(name=["elbow_joint", KNUCKLE], position=[1.0, 0.25 * CLOSED_RAD]))
    patience(lambda: openings, "the measured opening")
    assert list(openings[0].name) == ["gripper_left_finger_joint"]
    assert list(openings[0].position) == pytest.approx([0.75])
    assert len(heard) == 2
    assert node.end() == 0
    assert "Traceback" not in node.text


def test_franka_hand_grasps_opens_changes_its_mind_and_homes_when_told(make_peer, processes, patience) -> None:
    pytest.importorskip("franka_msgs")
    peer = make_peer("driver")
    gripper, told = franka(peer), Told(peer)
    gripper.object_at = 0.5
    openings = peer.hear(JointState, "gripper/state")
    wish = peer.speak(Float64, "gripper/command")
    node = processes.start_node("gripper_node", robot="fr3", hardware="mock")
    patience(lambda: openings, "the measured opening")
    assert list(openings[0].name) == ["fr3_finger_joint1"]
    assert list(openings[0].position) == [1.0]
    peer.matched(wish).publish(Float64(data=0.0))
    patience(lambda: gripper.opening == pytest.approx(0.5) and not gripper.at_once, "the object in the fingers")
    name, goal = gripper.goals[0]
    assert name == "franka_gripper/grasp"
    assert (goal.width, goal.force) == (0.0, 40.0)
    assert goal.speed == pytest.approx(0.1)  # 50 mm/s a finger.
    patience(lambda: told.text() == "at rest", "that an object is no error")
    wish.publish(Float64(data=1.0))
    patience(lambda: gripper.opening > 0.6, "the fingers on their way")
    wish.publish(Float64(data=0.3))
    gripper.object_at = 0.0
    patience(lambda: gripper.opening == pytest.approx(0.3) and not gripper.at_once, "the newest wish")
    assert [name for name, _ in gripper.goals] == [f"franka_gripper/{kind}" for kind in ("grasp", "move", "grasp")]
    assert gripper.most_at_once == 1
    answer = peer.call(Trigger, "gripper/homing")
    assert answer.success, answer.message
    patience(lambda: told.text() == "at rest" and len(gripper.goals) >= 5, "the end of homing")
    patience(lambda: gripper.opening == pytest.approx(0.3) and not gripper.at_once, "the wish after homing")
    assert "franka_gripper/homing" in [name for name, _ in gripper.goals]
    assert gripper.most_at_once == 1
    assert node.end() == 0
    assert "Traceback" not in node.text


@pytest.mark.parametrize("kind", ["GripperCommand", "ParallelGripperCommand"])
def test_gripper_controllers_of_ros2_control_are_driven(kind, make_peer, processes, patience, tmp_path) -> None:
    pytest.importorskip("control_msgs")
    wanted = "gripper_command" if kind == "GripperCommand" else "parallel_gripper_command"
    robot = robot_with(tmp_path, "ur5e", kind=wanted)
    peer = make_peer("driver")
    gripper, told = robotiq(peer, kind), Told(peer)
    gripper.object_at = 0.25
    wish = peer.speak(Float64, "gripper/command")
    processes.start_node("gripper_node", robot=robot, hardware="mock")
    peer.matched(wish).publish(Float64(data=0.0))
    patience(lambda: gripper.opening == pytest.approx(0.25) and not gripper.at_once, "the object in the fingers")
    patience(lambda: told.text() == "at rest", "that an object is no error")
    command = gripper.goals[0][1].command
    effort = command.max_effort if kind == "GripperCommand" else command.effort[0]
    assert effort == 40.0
    wish.publish(Float64(data=1.0))
    patience(lambda: gripper.opening > 0.4, "the fingers on their way")
    wish.publish(Float64(data=0.5))
    patience(lambda: gripper.opening == pytest.approx(0.5) and not gripper.at_once, "the newest wish")
    assert gripper.most_at_once == 1


def test_server_of_another_kind_is_named(make_peer, processes, patience) -> None:
    pytest.importorskip("control_msgs")
    peer = make_peer("driver")
    told = Told(peer)
    robotiq(peer, "ParallelGripperCommand")
    processes.start_node("gripper_node", robot="ur5e", hardware="mock")
    patience(lambda: "is of control_msgs/action/ParallelGripperCommand and not" in told.text(), "what is served")
    assert "driver.gripper.kind" in told.text()


def test_messages_that_are_not_installed_are_named_with_the_ways_to_get_them(processes, monkeypatch, tmp_path) -> None:
    (tmp_path / "franka_msgs.py").write_text("raise ModuleNotFoundError('gone', name='franka_msgs.action')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    node = processes.start_node("gripper_node", robot="fr3", hardware="mock")
    assert node.wait(30) == 2
    assert "franka_msgs is missing, needed for the gripper's action" in node.text
    assert "apt install ros-$ROS_DISTRO-franka-msgs" in node.text
    assert "pip install ./interfaces" in node.text
    assert "Traceback" not in node.text


def test_what_is_no_package_of_messages_is_not_said_to_be_one() -> None:
    with pytest.raises(ModuleNotFoundError, match="gone"):
        missing_package(ModuleNotFoundError("gone", name="scipy.linalg"), "something")
