"""mock_node as a process, for both drivers: it follows, refuses and stops as the real one, and says so."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")
for package in ("control_msgs", "controller_manager_msgs", "franka_msgs", "ur_dashboard_msgs", "ur_msgs"):
    pytest.importorskip(package)

from action_msgs.msg import GoalStatus
from control_msgs.action import GripperCommand
from controller_manager_msgs.srv import ListControllers, SwitchController
from franka_msgs.action import ErrorRecovery, Grasp, Homing, Move
from franka_msgs.msg import FrankaRobotState
from franka_msgs.srv import SetFullCollisionBehavior, SetLoad
from geometry_msgs.msg import WrenchStamped
from rclpy.action import ActionClient
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, Float64MultiArray
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from ur_dashboard_msgs.msg import SafetyMode
from ur_msgs.srv import SetPayload, SetSpeedSliderFraction

from vla_ros.nodes import messages
from vla_ros.robots.config import load_robot

pytestmark = [pytest.mark.ros, pytest.mark.sim]

JTC, POSITION, VELOCITY = "joint_trajectory_controller", "forward_position_controller", "forward_velocity_controller"
SCALED = "scaled_joint_trajectory_controller"
STRICT, BEST_EFFORT = SwitchController.Request.STRICT, SwitchController.Request.BEST_EFFORT
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
CLEAN_S = 20.0


class Mock:
    """A client of a running mock_node, as the project's own nodes are.

    Args:
        robot: its name.
        peer: talks.
        process: of the node.
        wait: `wait_until`.
        space: namespace, with a slash at its end.
    """

    def __init__(self, robot: str, peer: Any, process: Any, wait: Callable[..., Any], space: str = "") -> None:
        self.config = load_robot(robot)
        self.home = np.array([joint.home_rad for joint in self.config.joints])
        self.peer, self.process, self.wait, self.space = peer, process, wait, space
        self.states: list[JointState] = peer.hear(JointState, space + self.config.driver.joint_states)
        self.publishers: dict[str, Any] = {}
        self.clients: dict[str, ActionClient] = {}

    def positions(self) -> np.ndarray:
        return np.array(self.states[-1].position[: len(self.home)])

    def switch(self, on: list[str], off: list[str], strictness: int = STRICT) -> Any:
        request = SwitchController.Request(activate_controllers=on, deactivate_controllers=off, strictness=strictness)
        return self.peer.call(SwitchController, f"{self.space}controller_manager/switch_controller", request)

    def controllers(self) -> dict[str, str]:
        answer = self.peer.call(ListControllers, f"{self.space}controller_manager/list_controllers")
        return {item.name: item.state for item in answer.controller}

    def active(self) -> set[str]:
        return {name for name, state in self.controllers().items() if state == "active"}

    def only(self, *names: str) -> None:
        """Makes these the only ones that move the arm."""
        movers = {JTC, POSITION, VELOCITY, SCALED} & self.active()
        assert self.switch(list(names), sorted(movers), BEST_EFFORT).ok
        assert self.active() & {JTC, POSITION, VELOCITY, SCALED} == set(names)

    def trigger(self, name: str) -> Any:
        return self.peer.call(Trigger, self.space + name)

    def publisher(self, kind: type, topic: str) -> Any:
        if topic not in self.publishers:
            self.publishers[topic] = self.peer.speak(kind, self.space + topic)
        return self.peer.matched(self.publishers[topic])

    def send(self, controller: str, values: Any) -> None:
        self.publisher(Float64MultiArray, f"{controller}/commands").publish(Float64MultiArray(data=list(values)))

    def send_trajectory(self, controller: str, goal: Any, duration_s: float) -> None:
        message = JointTrajectory(joint_names=list(self.config.joint_names))
        zeros = [0.0] * len(self.home)
        point = JointTrajectoryPoint(positions=list(goal), velocities=zeros, accelerations=zeros)
        point.time_from_start = messages.to_duration(duration_s)
        message.points = [point]
        self.publisher(JointTrajectory, f"{controller}/joint_trajectory").publish(message)

    def client(self, kind: type, name: str) -> ActionClient:
        """Made in the executor's thread: rclpy adds it to the node before it is complete."""
        if name not in self.clients:
            made = self.peer.node.executor.create_task(lambda: ActionClient(self.peer.node, kind, self.space + name))
            self.wait(made.done, f"a client of {name}")
            self.clients[name] = made.result()
        self.wait(self.clients[name].server_is_ready, f"action {name}")
        return self.clients[name]

    def act(self, kind: type, name: str, goal: Any, cancel_after_s: float | None = None) -> tuple[int, Any]:
        """Status and result of an action's goal."""
        client = self.client(kind, name)
        sent = client.send_goal_async(goal)
        self.wait(sent.done, f"{name} to take the goal")
        handle = sent.result()
        assert handle.accepted
        if cancel_after_s is not None:
            time.sleep(cancel_after_s)
            handle.cancel_goal_async()
        ended = handle.get_result_async()
        self.wait(ended.done, f"the result of {name}")
        return ended.result().status, ended.result().result

    def reset(self) -> None:
        assert self.trigger("sim/reset").success
        heard = len(self.states)
        self.wait(lambda: len(self.states) > heard + 3, "joint states")


def start(robot: str, processes: Any, peer: Any, patience: Any, space: str = "", **parameters: Any) -> Mock:
    words = {"robot": robot, "rig": f"{robot}_table", "cameras": False, **parameters}
    if space:
        words["__ns"] = f"/{space.rstrip('/')}"
    assignments = [word for key, value in words.items() if key != "__ns" for word in ("-p", f"{key}:={value}")]
    remaps = ["-r", f"__ns:={words['__ns']}"] if space else []
    process = processes.start(sys.executable, "-m", "vla_ros.nodes", "mock_node", "--ros-args", *remaps, *assignments)
    mock = Mock(robot, peer, process, patience, space)
    patience(lambda: mock.states or process.poll() is not None, "joint states")
    assert process.poll() is None, process.text
    return mock


@pytest.fixture(scope="module")
def running_franka(module_processes, make_module_peer, patience) -> Iterator[Mock]:
    module_processes.close()
    mock = start("panda", module_processes, make_module_peer("client"), patience, seed=3)
    yield mock
    assert mock.process.end() == 0, mock.process.text
    assert "Traceback" not in mock.process.text


@pytest.fixture
def franka(running_franka: Mock) -> Mock:
    mock = running_franka
    assert mock.process.poll() is None, mock.process.text
    mock.act(ErrorRecovery, "action_server/error_recovery", ErrorRecovery.Goal())
    mock.only()
    mock.reset()
    return mock


@pytest.fixture(scope="module")
def running_ur(module_processes, make_module_peer, patience) -> Iterator[Mock]:
    mock = start("ur5e", module_processes, make_module_peer("ur_client"), patience, space="ur/")
    yield mock
    assert mock.process.end() == 0, mock.process.text
    assert "Traceback" not in mock.process.text


@pytest.fixture
def ur(running_ur: Mock) -> Mock:
    mock = running_ur
    assert mock.process.poll() is None, mock.process.text
    mock.wait(lambda: mock.trigger("dashboard_client/unlock_protective_stop").success, "the stop to be unlocked")
    assert mock.trigger("io_and_status_controller/resend_robot_program").success
    mock.only(SCALED)
    mock.reset()
    return mock


def test_franka_has_the_topics_services_and_actions_of_its_driver(franka: Mock) -> None:
    node = franka.peer.node
    franka.wait(lambda: node.count_publishers("/franka_robot_state_broadcaster/robot_state"), "its topics")
    published = dict(node.get_publisher_names_and_types_by_node("mock_node", "/"))
    for topic, kind in {
        "/franka/joint_states": "sensor_msgs/msg/JointState",
        "/franka_gripper/joint_states": "sensor_msgs/msg/JointState",
        "/franka_robot_state_broadcaster/robot_state": "franka_msgs/msg/FrankaRobotState",
        "/franka_robot_state_broadcaster/external_wrench_in_base_frame": "geometry_msgs/msg/WrenchStamped",
        "/sim/ground_truth": "tf2_msgs/msg/TFMessage",
    }.items():
        assert published[topic] == [kind]
    # What our own nodes make of it is theirs to say.
    assert not {"/joint_states", "/gripper/state"} & set(published)
    services = dict(node.get_service_names_and_types_by_node("mock_node", "/"))
    assert {
        "/controller_manager/list_controllers",
        "/controller_manager/switch_controller",
        "/service_server/set_load",
        "/service_server/set_full_collision_behavior",
        "/service_server/set_joint_stiffness",
        "/action_server/error_recovery/_action/send_goal",
        "/franka_gripper/move/_action/send_goal",
        "/franka_gripper/grasp/_action/send_goal",
        "/franka_gripper/homing/_action/send_goal",
        "/franka_gripper/gripper_action/_action/send_goal",
        "/sim/reset",
    } <= set(services)


def test_nothing_moves_a_franka_until_a_controller_is_active(franka: Mock) -> None:
    assert franka.active() == {"joint_state_broadcaster", "franka_robot_state_broadcaster"}
    franka.send_trajectory(JTC, franka.home + 0.1, 0.3)
    heard = len(franka.states)
    franka.wait(lambda: len(franka.states) > heard + 150, "joint states")
    np.testing.assert_allclose(franka.positions(), franka.home, atol=5e-3)
    assert franka.switch([JTC], []).ok
    franka.send_trajectory(JTC, franka.home + 0.1, 1.0)
    franka.wait(lambda: np.abs(franka.positions() - franka.home - 0.1).max() < 5e-3, "the goal")
    # By hand: 5.77 way / T^2 = 0.58 rad/s^2 at the most, of 7.5; the jerk of a quintic's ends is 60 way / T^3 = 6.
    extremes = json.loads(franka.trigger("mock/extremes").message)
    assert 0.0 < extremes["acceleration"] < 0.1
    assert extremes["velocity"] < 0.1


def test_staircase_of_250_hz_trips_a_franka_by_name_and_recovery_clears_it(franka: Mock) -> None:
    states: list[FrankaRobotState] = franka.peer.hear(FrankaRobotState, "franka_robot_state_broadcaster/robot_state")
    franka.wait(lambda: states and states[-1].robot_mode == FrankaRobotState.ROBOT_MODE_IDLE, "idle")
    assert franka.switch([POSITION], []).ok
    franka.wait(lambda: states[-1].robot_mode == FrankaRobotState.ROBOT_MODE_MOVE, "moving")
    franka.send(POSITION, franka.positions())
    begin, start_s = franka.positions(), time.monotonic()

    def is_tripped() -> bool:
        wanted = begin + np.array([0.1 * (time.monotonic() - start_s), *[0.0] * 6])
        franka.send(POSITION, wanted)
        return states[-1].robot_mode == FrankaRobotState.ROBOT_MODE_REFLEX

    franka.wait(is_tripped, "the reflex")
    assert states[-1].current_errors.joint_motion_generator_velocity_discontinuity
    assert states[-1].current_errors.joint_motion_generator_acceleration_discontinuity
    assert not states[-1].current_errors.joint_reflex
    stopped = franka.positions()
    assert np.abs(stopped - begin).max() < 0.02
    assert POSITION not in franka.active()
    answer = franka.switch([POSITION], [])
    assert not answer.ok
    assert "error_recovery" in answer.message
    status, _ = franka.act(ErrorRecovery, "action_server/error_recovery", ErrorRecovery.Goal())
    assert status == GoalStatus.STATUS_SUCCEEDED
    franka.wait(lambda: states[-1].robot_mode == FrankaRobotState.ROBOT_MODE_IDLE, "idle")
    assert not states[-1].current_errors.joint_motion_generator_velocity_discontinuity
    assert states[-1].last_motion_errors.joint_motion_generator_velocity_discontinuity
    assert franka.switch([JTC], []).ok
    np.testing.assert_allclose(franka.positions(), stopped, atol=0.01)


def test_conflicting_and_unknown_switches_are_refused(franka: Mock) -> None:
    assert franka.switch([JTC], []).ok
    before = franka.controllers()
    refused: list[tuple[list[str], list[str]]] = [
        ([POSITION], []),
        ([JTC], []),
        ([], [POSITION]),
        (["no_such_controller"], []),
        ([POSITION, VELOCITY], [JTC]),
    ]
    for on, off in refused:
        answer = franka.switch(on, off)
        assert not answer.ok, (on, off)
        assert answer.message
        assert franka.controllers() == before
    assert franka.switch([POSITION, "no_such_controller"], [JTC], BEST_EFFORT).ok
    assert franka.active() & {JTC, POSITION} == {POSITION}


def test_command_of_wrong_length_ends_its_controller_and_nan_is_left_out(franka: Mock) -> None:
    assert franka.switch([POSITION], []).ok
    franka.send(POSITION, [float("nan")] * 7)
    heard = len(franka.states)
    franka.wait(lambda: len(franka.states) > heard + 20, "joint states")
    assert POSITION in franka.active()
    franka.send(POSITION, [0.0, 0.0])
    franka.wait(lambda: POSITION not in franka.active(), "the controller to end")


def test_parameters_are_refused_while_a_franka_moves(franka: Mock) -> None:
    load = SetLoad.Request(mass=0.5, load_inertia=[0.001, 0.0, 0.0, 0.0, 0.001, 0.0, 0.0, 0.0, 0.001])
    assert franka.peer.call(SetLoad, "service_server/set_load", load).success
    behaviour = SetFullCollisionBehavior.Request()
    for name in behaviour.get_fields_and_field_types():
        setattr(behaviour, name, [20.0] * (7 if "torque" in name else 6))
    name = "service_server/set_full_collision_behavior"
    assert franka.peer.call(SetFullCollisionBehavior, name, behaviour).success
    assert franka.switch([JTC], []).ok
    answer = franka.peer.call(SetLoad, "service_server/set_load", load)
    assert not answer.success
    assert "not possible in the current mode" in answer.error


def test_franka_hand_goes_where_its_actions_say_and_aborts_out_of_range(franka: Mock) -> None:
    fingers: list[JointState] = franka.peer.hear(JointState, "franka_gripper/joint_states")
    franka.wait(lambda: fingers, "the fingers")
    assert list(fingers[-1].name) == ["panda_finger_joint1", "panda_finger_joint2"]
    assert franka.act(Move, "franka_gripper/move", Move.Goal(width=0.03, speed=0.1))[1].success
    franka.wait(lambda: abs(fingers[-1].position[0] - 0.015) < 2e-3, "the fingers at half the width")
    goal = GripperCommand.Goal()
    goal.command.position = 0.035
    status, result = franka.act(GripperCommand, "franka_gripper/gripper_action", goal)
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert result.reached_goal
    assert result.position == pytest.approx(0.07, abs=4e-3)
    goal.command.position = 0.05
    assert franka.act(GripperCommand, "franka_gripper/gripper_action", goal)[0] == GoalStatus.STATUS_ABORTED
    status, result = franka.act(Move, "franka_gripper/move", Move.Goal(width=0.09, speed=0.1))
    assert status == GoalStatus.STATUS_ABORTED
    assert not result.success
    assert result.error
    # There is nothing between the fingers.
    empty = Grasp.Goal(width=0.03, speed=0.1, force=20.0)
    assert franka.act(Grasp, "franka_gripper/grasp", empty)[0] == GoalStatus.STATUS_ABORTED
    assert franka.act(Homing, "franka_gripper/homing", Homing.Goal())[1].success
    franka.wait(lambda: fingers[-1].position[0] > 0.038, "open fingers")


def test_goal_of_the_hand_can_be_canceled_and_is_over_when_another_comes(franka: Mock) -> None:
    slow = Move.Goal(width=0.0, speed=0.005)
    status, _ = franka.act(Move, "franka_gripper/move", slow, cancel_after_s=0.2)
    assert status == GoalStatus.STATUS_CANCELED
    ended: list[tuple[int, Any]] = []
    thread = threading.Thread(target=lambda: ended.append(franka.act(Move, "franka_gripper/move", slow)))
    thread.start()
    time.sleep(1.0)
    assert franka.act(Move, "franka_gripper/move", Move.Goal(width=0.08, speed=0.1))[1].success
    thread.join(CLEAN_S)
    assert [status for status, _ in ended] == [GoalStatus.STATUS_ABORTED]


def test_joint_states_go_on_at_their_rate_while_services_and_actions_are_served(franka: Mock) -> None:
    begin, goal = len(franka.states), Move.Goal(width=0.0, speed=0.02)
    franka.act(Move, "franka_gripper/move", goal)
    for _ in range(20):
        franka.controllers()
    stamps = np.array([messages.to_ns(message.header.stamp) for message in franka.states[begin:]])
    steps_ms = np.diff(stamps) * 1e-6
    assert len(steps_ms) > 200
    # Four milliseconds each; a machine that is shared leaves some out.
    assert np.median(steps_ms) == pytest.approx(4.0, abs=0.01)
    assert steps_ms.max() < 250.0


def test_reflex_silence_and_force_can_be_asked_for(franka: Mock) -> None:
    states: list[FrankaRobotState] = franka.peer.hear(FrankaRobotState, "franka_robot_state_broadcaster/robot_state")
    assert franka.switch([JTC], []).ok
    assert franka.trigger("mock/reflex").success
    franka.wait(lambda: states and states[-1].current_errors.joint_reflex, "the reflex")
    assert JTC not in franka.active()
    assert franka.peer.set_parameter("mock_node", "mock.silence_s", 0.4).successful
    assert franka.trigger("mock/silence").success
    heard = len(franka.states)
    franka.wait(lambda: len(franka.states) > heard + 10, "joint states again")
    stamps = np.array([messages.to_ns(message.header.stamp) for message in franka.states[-40:]])
    assert np.diff(stamps).max() >= 0.35e9
    assert franka.peer.set_parameter("mock_node", "mock.force_n", 30.0).successful
    # The driver's own is best effort, which a reliable listener doesn't hear.
    wrenches: list[WrenchStamped] = []
    topic = "franka_robot_state_broadcaster/external_wrench_in_base_frame"
    best_effort = QoSProfile(depth=1, reliability=2)
    franka.peer.node.create_subscription(WrenchStamped, topic, wrenches.append, best_effort)
    franka.wait(lambda: wrenches and wrenches[-1].wrench.force.z > 29.0, "the force")
    assert franka.peer.set_parameter("mock_node", "mock.force_n", 0.0).successful


def test_ur_starts_with_its_trajectory_controller_and_a_running_program(ur: Mock) -> None:
    running: list[Bool] = []
    modes: list[SafetyMode] = []
    topic = f"{ur.space}io_and_status_controller"
    ur.peer.node.create_subscription(Bool, f"{topic}/robot_program_running", running.append, LATCHED)
    ur.peer.node.create_subscription(SafetyMode, f"{topic}/safety_mode", modes.append, LATCHED)
    ur.wait(lambda: running and modes, "what is latched")
    assert running[-1].data
    assert modes[-1].mode == SafetyMode.NORMAL
    assert SCALED in ur.active()
    assert list(ur.states[-1].name) == [*ur.config.joint_names, "robotiq_85_left_knuckle_joint"]


def test_ur_follows_a_trajectory_slower_at_half_the_speed_scaling(ur: Mock) -> None:
    scaling: list[Float64] = ur.peer.hear(Float64, f"{ur.space}speed_scaling_state_broadcaster/speed_scaling")
    name = f"{ur.space}io_and_status_controller/set_speed_slider"
    assert not ur.peer.call(SetSpeedSliderFraction, name, SetSpeedSliderFraction.Request()).success
    request = SetSpeedSliderFraction.Request(speed_slider_fraction=0.5)
    try:
        assert ur.peer.call(SetSpeedSliderFraction, name, request).success
        ur.wait(lambda: scaling and scaling[-1].data == 50.0, "speed scaling of 50 %")
        ur.send_trajectory(SCALED, ur.home + 0.2, 1.0)
        ur.wait(lambda: abs(ur.positions()[0] - ur.home[0]) > 0.01, "motion")
        begin = messages.to_ns(ur.states[-1].header.stamp)
        ur.wait(lambda: np.abs(ur.positions() - ur.home - 0.2).max() < 3e-3, "the goal")
        took_s = (messages.to_ns(ur.states[-1].header.stamp) - begin) * 1e-9
        # By hand: the quintic has gone 5 % of its way after 19 % of its time and 98.5 % after 87 %: 0.68 s, doubled.
        assert 1.1 < took_s < 1.9
    finally:
        request.speed_slider_fraction = 1.0
        assert ur.peer.call(SetSpeedSliderFraction, name, request).success


def test_protective_stop_is_unlocked_late_and_the_same_controllers_come_back(ur: Mock) -> None:
    running: list[Bool] = []
    modes: list[SafetyMode] = []
    topic = f"{ur.space}io_and_status_controller"
    ur.peer.node.create_subscription(Bool, f"{topic}/robot_program_running", running.append, LATCHED)
    ur.peer.node.create_subscription(SafetyMode, f"{topic}/safety_mode", modes.append, LATCHED)
    ur.only(POSITION)
    ur.send(POSITION, ur.positions())
    before = ur.active()
    assert ur.trigger("mock/protective_stop").success
    stopped_s = time.monotonic()
    ur.wait(lambda: modes and modes[-1].mode == SafetyMode.PROTECTIVE_STOP, "the safety mode")
    ur.wait(lambda: running and not running[-1].data, "the program's end")
    assert ur.active() == before - {POSITION}
    refusal = ur.trigger("dashboard_client/unlock_protective_stop")
    assert not refusal.success
    assert "5s" in refusal.message
    assert not ur.trigger("io_and_status_controller/resend_robot_program").success
    at = ur.positions()
    ur.wait(lambda: ur.trigger("dashboard_client/unlock_protective_stop").success, "the unlocking")
    assert time.monotonic() - stopped_s > 4.0
    ur.wait(lambda: modes[-1].mode == SafetyMode.NORMAL, "the safety mode")
    assert not running[-1].data
    assert ur.active() == before - {POSITION}
    assert ur.trigger("io_and_status_controller/resend_robot_program").success
    ur.wait(lambda: running[-1].data, "the program")
    assert ur.active() == before
    np.testing.assert_allclose(ur.positions(), at, atol=5e-3)


def test_ur_stops_itself_when_it_is_led_too_fast(ur: Mock) -> None:
    ur.only(VELOCITY)
    ur.send(VELOCITY, [0.0, 0.0, 0.0, 0.0, 0.0, 4.0])
    ur.wait(lambda: VELOCITY not in ur.active(), "the stop")
    assert "speed of wrist_3_joint" in ur.process.text or ur.wait(
        lambda: "speed of wrist_3_joint" in ur.process.text, "its reason in the log"
    )


def test_program_can_be_stopped_and_played(ur: Mock) -> None:
    before = ur.active()
    assert ur.trigger("dashboard_client/stop").success
    assert ur.active() == before - {SCALED}
    assert ur.trigger("dashboard_client/play").success
    assert ur.active() == before


def test_payload_is_taken_and_the_gripper_moves_its_knuckle(ur: Mock) -> None:
    name = f"{ur.space}io_and_status_controller/set_payload"
    assert ur.peer.call(SetPayload, name, SetPayload.Request(mass=0.95)).success
    goal = GripperCommand.Goal()
    goal.command.position, goal.command.max_effort = 0.4, 50.0
    status, result = ur.act(GripperCommand, "robotiq_gripper_controller/gripper_cmd", goal)
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert result.reached_goal
    ur.wait(lambda: abs(ur.states[-1].position[6] - 0.4) < 0.03, "the knuckle")
    # Further than it goes: it stalls where it ends, which its controller counts as a success.
    goal.command.position = 1.2
    status, result = ur.act(GripperCommand, "robotiq_gripper_controller/gripper_cmd", goal)
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert result.stalled
    assert not result.reached_goal
    assert result.position == pytest.approx(0.7929, abs=0.03)


def test_ground_truth_and_reset_are_those_of_sim_node(ur: Mock) -> None:
    truth: list[TFMessage] = ur.peer.hear(TFMessage, f"{ur.space}sim/ground_truth")
    ur.send_trajectory(SCALED, ur.home + 0.1, 0.5)
    ur.wait(lambda: np.abs(ur.positions() - ur.home - 0.1).max() < 5e-3, "the goal")
    assert ur.trigger("sim/reset").success
    ur.wait(lambda: np.abs(ur.positions() - ur.home).max() < 5e-3, "home")
    ur.wait(lambda: truth, "ground truth")
    names = {edge.child_frame_id for edge in truth[-1].transforms}
    assert {"tcp", "block_red", "camera/base"} <= names


def test_camera_that_the_rig_lacks_cannot_be_lost(ur: Mock) -> None:
    answer = ur.peer.set_parameter(f"{ur.space}mock_node", "mock.lost_cameras", "base,elbow")
    assert not answer.successful
    assert answer.reason.startswith("unknown camera 'elbow'")


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"robot": "panda"}, "parameter 'rig' is not set"),
        ({"robot": "panda", "rig": "panda_table", "joint_state_rate_hz": 1000.0}, "joint_state_rate_hz"),
    ],
)
def test_unusable_parameter_ends_the_node_with_code_2_and_a_line_that_names_it(processes, parameters, text) -> None:
    process = processes.start_node("mock_node", **parameters)
    assert process.wait(60.0) == 2
    assert text in process.text.splitlines()[-1]
    assert "Traceback" not in process.text


def test_arm_without_a_driver_is_refused_with_the_mend(processes, tmp_path) -> None:
    import yaml

    from vla_ros.config import package_share

    data = yaml.safe_load((package_share() / "config" / "robots" / "panda.yaml").read_text())
    del data["driver"]
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump(data))
    process = processes.start_node("mock_node", robot=str(path), rig="panda_table")
    assert process.wait(60.0) == 2
    assert "has no driver" in process.text.splitlines()[-1]


def test_two_arms_share_a_machine_each_in_its_namespace(processes, make_peer, patience) -> None:
    peer = make_peer("client")
    left = start("panda", processes, peer, patience, space="left/")
    right = start("panda", processes, peer, patience, space="right/")
    assert left.switch([JTC], []).ok
    left.send_trajectory(JTC, left.home + 0.1, 0.5)
    patience(lambda: np.abs(left.positions() - left.home - 0.1).max() < 5e-3, "the left arm at its goal")
    np.testing.assert_allclose(right.positions(), right.home, atol=5e-3)
    assert JTC not in right.active()
