"""The motion path as a process, with an arm of a few lines behind it: what it lets through, and why it holds.

Whatever a test does, everything that was sent to the arm meanwhile is judged at its end.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from plain_arm import COMMAND_TOPIC, ROBOT, Arm, spread
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import (
    JointTrajectory,
    JointTrajectoryPoint,
    MultiDOFJointTrajectory,
)

from vla_ros.actions.path import OffsetLimits
from vla_ros.config import load, package_share
from vla_ros.geometry.se3 import make_pose
from vla_ros.nodes import messages
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.types import JointCommand, RobotState, ToolChunk

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def running_arm(module_processes, make_module_peer, patience) -> Iterator[Arm]:
    arm = Arm(make_module_peer("fake_arm"), patience)
    module_processes.close()
    arm.process = module_processes.start_node("motion", robot="panda", source="p")
    patience(lambda: arm.commands or arm.process.poll() is not None, "the first command")
    assert arm.process.poll() is None, arm.process.text
    yield arm
    assert arm.process.end() == 0, arm.process.text


ATTEMPTS = 5


def undisturbed(test: Callable[..., None]) -> Callable[..., None]:
    """Makes another attempt where a stall of the machine had dropped a test's motion, as it should."""

    @functools.wraps(test)
    def attempt(arm: Arm, **arguments: Any) -> None:
        for _ in range(ATTEMPTS - 1):
            try:
                return test(arm, **arguments)
            except AssertionError:
                if not arm.disturbance:
                    raise
            make_ready(arm)
        return test(arm, **arguments)

    return attempt


@pytest.fixture
def arm(running_arm: Arm) -> Iterator[Arm]:
    """The arm at rest with `p` selected; judged when the test is over."""
    make_ready(running_arm)
    yield running_arm
    report = running_arm.judge()
    assert report.ticks > 20
    assert report.is_clean, [str(violation) for violation in report.first_violations.values()]


def make_ready(arm: Arm) -> None:
    """Brings the arm home and to rest, with `p` selected and nothing heard yet."""
    assert arm.process.poll() is None, arm.process.text
    arm.is_silent = arm.expects_fault = False
    for _ in range(ATTEMPTS):
        with contextlib.suppress(AssertionError):
            go_home(arm)
            break
    else:
        go_home(arm)
    arm.commands.clear()
    arm.verdicts.clear()
    arm.await_ticks(1)


def go_home(arm: Arm) -> None:
    arm.call("safety/reset")
    assert arm.select("nobody").successful
    assert arm.select("p").successful
    # What it still said of before is over.
    arm.await_free()
    arm.await_rest()
    # By a motion in any case: nothing is left that would keep a test's own chunks out.
    home = JointTrajectory(joint_names=list(ROBOT.joint_names), points=[JointTrajectoryPoint()])
    home.points[0].positions = list(arm.model.home)

    def distance_rad() -> float:
        return float(np.abs(np.array(arm.commands[-1].position) - arm.model.home).max())

    def has_begun() -> bool:
        home.points[0].time_from_start = messages.to_duration(0.3 if distance_rad() < 0.02 else 1.2)
        home.header.stamp = arm.peer.node.get_clock().now().to_msg()
        arm.send(home)
        return arm.state == "running"

    arm.wait(has_begun, "the arm to set out for home")
    arm.wait(lambda: arm.state == "holding" and distance_rad() < 0.01, "the arm to come home")
    arm.await_rest()


@undisturbed
def test_chunk_of_the_selected_source_moves_the_arm_where_it_says(arm: Arm) -> None:
    start = arm.tcp()
    arm.send(arm.chunk(0.0, 0.06, -0.04))
    arm.await_verdict("running", "source=p")
    arm.await_verdict("holding", "last chunk of p has ended")
    arm.await_rest()
    # Damped inverse kinematics and the fake arm's delay: well below a millimetre.
    np.testing.assert_allclose(arm.tcp() - start, [0.0, 0.06, -0.04], atol=1e-3)
    assert arm.judge().peak_velocity_fraction > 0.02


@undisturbed
def test_chunk_stamped_just_now_is_executed(arm: Arm) -> None:
    # Newer than every joint state that has come, as a teleoperator's always is.
    for _ in range(3):
        start = arm.tcp()
        arm.send(arm.chunk(0.0, 0.02, 0.0, duration_s=0.5))
        arm.await_motion(1, 0.01, start)
        arm.await_verdict("holding", "has ended")
        arm.await_rest()


@undisturbed
def test_chunk_of_another_source_does_not_move_the_arm_until_it_is_selected(arm: Arm) -> None:
    arm.select("q")
    arm.peer.matched(arm.publisher(MultiDOFJointTrajectory, "policies/q/action_chunk"))
    arm.select("p")
    arm.send(arm.chunk(0.0, 0.05, 0.0), "policies/q")
    arm.await_verdict("holding", "chunk of q while the selected source is p")
    assert spread(arm.await_ticks(100)) < 1e-6
    arm.select("q")
    start = arm.tcp()
    arm.wait(lambda: arm.send(arm.chunk(0.0, 0.05, 0.0), "policies/q") or "running" in arm.state, "q to run")
    arm.await_motion(1, 0.03, start)


@undisturbed
def test_stop_brakes_and_refuses_chunks_until_reset(arm: Arm) -> None:
    start = arm.tcp()
    arm.send(arm.chunk(0.0, 0.15, 0.0))
    arm.await_motion(1, 0.04, start)
    asked_ns = arm.peer.now_ns()
    answer = arm.call("safety/stop")
    assert answer.success
    assert "safety/reset" in answer.message
    arm.await_verdict("stopped", "safety/stop was called")
    arm.await_rest()
    moving_ns = [messages.to_ns(m.header.stamp) for m in arm.commands if np.abs(m.velocity).max() > 1e-3]
    # 0.3 m/s against 2 m/s^2, the way of the call, and slack for a loaded machine.
    assert moving_ns[-1] - asked_ns < 1_000_000_000
    at_rest = arm.tcp()
    arm.send(arm.chunk(0.0, -0.05, 0.0))
    arm.await_verdict("stopped", "chunk=chunk of p while stopped", "call safety/reset first")
    assert spread(arm.await_ticks(100)) < 1e-6
    assert arm.call("safety/reset").success
    arm.await_verdict("holding", "reset; waiting for a chunk")
    arm.send(arm.chunk(0.0, -0.05, 0.0))
    arm.await_motion(1, -0.03, at_rest)


@undisturbed
def test_teleop_takes_over_and_the_policy_waits_until_it_is_selected_again(arm: Arm) -> None:
    start = arm.tcp()
    # Known to DDS before it speaks.
    arm.peer.matched(arm.publisher(MultiDOFJointTrajectory, "teleop/action_chunk"))
    arm.send(arm.chunk(0.0, 0.15, 0.0))
    arm.await_motion(1, 0.03, start)
    arm.send(arm.chunk(0.0, 0.0, 0.05), "teleop")
    arm.await_verdict("running", "source=teleop")
    arm.wait(lambda: arm.selected() == "teleop", "the parameter to say so")
    arm.await_motion(2, 0.04, start)
    arm.await_verdict("holding", "last chunk of teleop has ended")
    arm.send(arm.chunk(0.0, 0.05, 0.0))
    arm.await_verdict("holding", "chunk of p while the selected source is teleop")
    arm.await_rest()
    here = arm.tcp()
    assert arm.select("p").successful
    assert spread(arm.await_ticks(50)) < 1e-6
    arm.send(arm.chunk(0.0, 0.03, 0.0))
    arm.await_motion(1, 0.02, here)


class SteppedFilter:
    """The filter alone, with an arm that follows at once, stepped by a test."""

    period_ns = 4_000_000

    def __init__(self) -> None:
        model = RobotModel.from_config(ROBOT)
        self.T_base_tcp = model.forward_kinematics(model.home)
        self.config = load(SafetyConfig, package_share() / "config" / "safety.yaml")
        limits = OffsetLimits(model.velocity, model.acceleration, model.jerk)
        self.filter = SafetyFilter(self.config, ROBOT.tool, lambda _positions: self.T_base_tcp, limits)
        self._states, self._home = JointStateBuffer(10), model.home
        self.measure(1_000_000_000)

    def measure(self, stamp_ns: int) -> None:
        self._measured = RobotState(stamp_ns, self._home, np.zeros(7))
        self._states.append(self._measured)

    def offer(self, source: str, y_m: float, stamp_ns: int, now_ns: int) -> None:
        times_s = np.arange(1, 11) * 0.1
        way = make_pose(np.outer(times_s, [0.0, y_m, 0.0]))
        self.filter.offer(ToolChunk(stamp_ns, "base", way, None, times_s, source), now_ns, self._states)

    def step(self, stamp_ns: int) -> float:
        """One tick; the tcp's y after it."""
        target, _ = self.filter.step(stamp_ns, 0.004, self._measured)
        if target is not None:
            self.T_base_tcp = target.T_base_tcp
        return float(self.T_base_tcp[1, 3])


def test_engaging_while_ticks_are_caught_up_with_keeps_the_limits() -> None:
    """Their nominal times lie before the chunk's arrival: a soft start that counted backwards had negative limits."""
    stepped, second_ns = SteppedFilter(), 1_000_000_000
    stepped.filter.select_source("p", 0)
    # Half a metre in a second, too much for a soft start, so that the limits act from the first tick.
    stepped.offer("p", 0.5, second_ns, second_ns + 40 * stepped.period_ns)
    last_m = float(stepped.T_base_tcp[1, 3])
    for tick in range(60):
        y_m = stepped.step(second_ns + tick * stepped.period_ns)
        assert abs(y_m - last_m) <= 0.004 * stepped.config.velocity_m_s
        last_m = y_m


def test_takeover_of_a_moving_tool_does_not_swing_it_far_out() -> None:
    stepped, y_m = SteppedFilter(), [0.0]
    stepped.filter.select_source("p", 0)
    for tick in range(1, 700):
        now_ns = 1_000_000_000 + tick * stepped.period_ns
        stepped.measure(now_ns)
        if tick == 10:
            stepped.offer("p", 0.3, now_ns, now_ns)
        if tick == 200:
            stepped.filter.select_source("teleop", now_ns)
            stepped.offer("teleop", 0.0, now_ns, now_ns)
        y_m.append(stepped.step(now_ns))
    speed_m_s = (y_m[199] - y_m[198]) / 0.004
    assert speed_m_s > 0.05
    # Leading over may take half of 2 m/s^2, shared by three axes. A soft start had a fifth of that: five times the way.
    braking_m = 0.5 * speed_m_s**2 / (0.5 * 2.0 / np.sqrt(3.0))
    assert max(y_m[200:]) - y_m[199] < 2.0 * braking_m


def joint_chunk(arm: Arm, angles_rad: list[float], step_s: float, joint: int = 0) -> JointTrajectory:
    """Moves a joint from angle to angle about its home."""
    message = JointTrajectory(joint_names=list(ROBOT.joint_names))
    message.header.stamp = arm.peer.node.get_clock().now().to_msg()
    for number, angle_rad in enumerate(angles_rad, start=1):
        positions = arm.model.home.tolist()
        positions[joint] += angle_rad
        duration = messages.to_duration(number * step_s)
        message.points.append(JointTrajectoryPoint(positions=positions, time_from_start=duration))
    return message


@undisturbed
def test_joint_chunk_that_asks_too_much_is_slowed_to_the_limits(arm: Arm) -> None:
    # 0.4 rad to and fro every 0.1 s are 6 rad/s at their fastest, where the last joint may do 2.61 rad/s. It turns the
    # tool on the spot: of the others the filter would say that they can't be braked inside the workspace.
    arm.send(joint_chunk(arm, [0.2, -0.2] * 6 + [0.0], 0.1, joint=6))
    arm.await_verdict("running")
    arm.await_verdict("holding", "last chunk of p has ended")
    arm.await_rest()
    report = arm.judge()
    assert report.is_clean, [str(violation) for violation in report.first_violations.values()]
    # It isn't for want of trying.
    assert report.peak_acceleration_fraction > 0.5
    assert report.peak_jerk_fraction > 0.5


@undisturbed
def test_joint_chunk_that_ends_before_the_arm_can_be_there_is_still_carried_out(arm: Arm) -> None:
    # 0.1 rad in 0.1 s, from rest and with the limits of a soft start.
    arm.wait(
        lambda: arm.state == "running" or arm.send(joint_chunk(arm, [0.1], 0.1)) or arm.state == "running", "it to run"
    )
    arm.await_verdict("holding", "last chunk of p has ended")
    arm.await_rest()
    assert arm.commands[-1].position[0] - arm.model.home[0] == pytest.approx(0.1, abs=1e-3)


@undisturbed
def test_silence_of_the_joint_states_holds_the_arm_by_name_until_they_are_back(arm: Arm) -> None:
    start = arm.tcp()
    arm.send(arm.chunk(0.0, 0.15, 0.0))
    arm.await_motion(1, 0.04, start)
    arm.is_silent = arm.expects_fault = True
    arm.await_verdict("fault", "no joint state for", "is the driver running?")
    arm.await_rest()
    here = arm.tcp()
    arm.is_silent = False
    arm.await_verdict("holding", "waiting for a chunk after a fault: no joint state for")
    arm.expects_fault = False
    assert spread(arm.await_ticks(100)) < 1e-6
    arm.send(arm.chunk(0.0, -0.05, 0.0))
    arm.await_motion(1, -0.03, here)


@undisturbed
def test_second_publisher_of_the_selected_chunks_holds_the_arm_and_is_named(arm: Arm, make_peer) -> None:
    start = arm.tcp()
    arm.send(arm.chunk(0.0, 0.2, 0.0, duration_s=4.0))
    arm.await_motion(1, 0.01, start)
    with contextlib.closing(make_peer("intruder")) as intruder:
        intruder.speak(MultiDOFJointTrajectory, "policies/p/action_chunk")
        arm.await_verdict("holding", "two publishers", "intruder", "policies/p/action_chunk")
        arm.await_rest()
        here = arm.tcp()
        assert here[1] - start[1] < 0.19
        arm.send(arm.chunk(0.0, 0.05, 0.0))
        arm.await_verdict("holding", "chunk of p dropped: two publishers", "intruder")
        assert spread(arm.await_ticks(100)) < 1e-6
    arm.wait(
        lambda: arm.send(arm.chunk(0.0, -0.05, 0.0)) or (arm.tcp() - here)[1] < -0.01, "motion without the intruder"
    )


@undisturbed
def test_second_commander_of_the_arm_holds_it_and_is_named(arm: Arm, make_peer) -> None:
    start = arm.tcp()
    arm.send(arm.chunk(0.0, 0.2, 0.0, duration_s=4.0))
    arm.await_motion(1, 0.01, start)
    arm.diagnostics.clear()

    def controller_reason() -> str:
        statuses = [status for message in list(arm.diagnostics) for status in message.status]
        return next((status.message for status in reversed(statuses) if "controller_node" in status.name), "")

    with contextlib.closing(make_peer("intruder")) as intruder:
        intruder.speak(Float64MultiArray, COMMAND_TOPIC)
        # At first DDS may not tell its name.
        arm.wait(lambda: "intruder" in controller_reason(), "the controller to name the intruder")
        assert "holding: two publishers" in controller_reason()
        assert COMMAND_TOPIC in controller_reason()
        arm.await_rest()
        assert arm.tcp()[1] - start[1] < 0.19
    arm.wait(lambda: "two publishers" not in controller_reason(), "the controller to go on")


def spoiled(chunk: MultiDOFJointTrajectory, field: str, value: float) -> MultiDOFJointTrajectory:
    part, _, axis = field.partition(".")
    setattr(getattr(chunk.points[3].transforms[0], part), axis, value)
    return chunk


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("translation.y", math.nan, "a transform isn't finite"),
        ("translation.x", math.inf, "a transform isn't finite"),
        ("rotation.w", math.nan, "quaternion"),
        ("rotation.w", 0.0, "quaternion"),
    ],
)
@undisturbed
def test_chunk_that_is_no_number_moves_nothing_and_is_named(arm: Arm, field: str, value: float, text: str) -> None:
    arm.send(spoiled(arm.chunk(0.0, 0.05, 0.0), field, value))
    arm.await_verdict("holding", "chunk=chunk of p", text)
    assert spread(arm.await_ticks(60)) < 1e-6


@undisturbed
def test_nan_chunk_during_motion_changes_nothing(arm: Arm) -> None:
    start = arm.tcp()
    arm.send(arm.chunk(0.0, 0.1, 0.0))
    arm.await_motion(1, 0.02, start)
    arm.send(spoiled(arm.chunk(0.0, -0.1, 0.0), "translation.y", math.nan))
    arm.await_verdict("holding", "last chunk of p has ended")
    arm.await_rest()
    np.testing.assert_allclose(arm.tcp() - start, [0.0, 0.1, 0.0], atol=1e-3)


@pytest.mark.parametrize("way_m", [1e6, 1e300])
@undisturbed
def test_chunk_to_another_planet_stays_in_the_workspace(arm: Arm, way_m: float) -> None:
    arm.send(arm.chunk(0.0, way_m, 0.0))
    verdicts = len(arm.verdicts)
    arm.wait(lambda: len(arm.verdicts) > verdicts + 15, "verdicts")
    # Half a metre to the side, and what the inverse kinematics may be off at speed.
    assert all(abs(arm.model.forward_kinematics(np.array(m.position))[1, 3]) < 0.52 for m in list(arm.commands)[::10])
    assert arm.process.poll() is None


@pytest.mark.parametrize("times_s", [(1e-9, 2e-9), (1e-9, 2147483647.0), (2147483646.0, 2147483647.0)])
def test_chunk_of_odd_times_does_no_harm(arm: Arm, patience, times_s: tuple[float, float]) -> None:
    chunk = arm.chunk(0.0, 0.1, 0.0)
    chunk.points = chunk.points[4:6]
    for point, time_s in zip(chunk.points, times_s, strict=True):
        point.time_from_start = messages.to_duration(time_s)
    arm.send(chunk)
    begin = len(arm.commands)
    patience(lambda: len(arm.commands) > begin + 150 or arm.process.poll() is not None, "commands")
    assert arm.process.poll() is None


@undisturbed
def test_new_task_drops_what_the_policy_said_before(arm: Arm) -> None:
    start = arm.tcp()
    old = arm.chunk(0.0, 0.05, 0.0, duration_s=0.9)
    arm.send(arm.chunk(0.0, 0.15, 0.0, duration_s=3.0))
    arm.await_motion(1, 0.01, start)
    arm.peer.matched(arm.publisher(String, "task")).publish(String(data="reach the red block"))
    arm.await_verdict("holding", "task is now 'reach the red block'")
    arm.send(old)
    arm.await_verdict("holding", "chunk of p is from before the last change of task or source")
    arm.await_rest()
    assert arm.tcp()[1] - start[1] < 0.1


@undisturbed
def test_source_that_is_no_topic_name_is_refused_and_motion_goes_on(arm: Arm) -> None:
    for name in ("two words", 'a"quote', "1st", "a//b"):
        answer = arm.select(name)
        assert not answer.successful
        assert name in answer.reason
    assert arm.select("p").successful
    start = arm.tcp()
    arm.send(arm.chunk(0.0, 0.03, 0.0))
    arm.await_motion(1, 0.02, start)


# Lifecycle


def get_state(arm: Arm) -> str:
    return str(arm.peer.call(GetState, "controller_node/get_state").current_state.label)


def change_state(arm: Arm, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(arm.peer.call(ChangeState, "controller_node/change_state", request).success)


@undisturbed
def test_deactivated_controller_brakes_first_and_then_commands_nothing(arm: Arm) -> None:
    assert get_state(arm) == "active"
    start = arm.tcp()
    arm.send(arm.chunk(0.0, 0.2, 0.0, duration_s=4.0))
    arm.await_motion(1, 0.01, start)
    assert change_state(arm, Transition.TRANSITION_DEACTIVATE)
    assert get_state(arm) == "inactive"
    # What was under way has arrived; the newest command is at rest, and it is the last.
    for _ in range(2):
        verdicts, last = len(arm.verdicts), arm.commands[-1]
        arm.wait(lambda so_far=verdicts: len(arm.verdicts) >= so_far + 3, "the filter to go on")
    assert arm.commands[-1] is last
    # 1e-4 rad/s is what the controller takes for standing still.
    assert np.abs(last.velocity).max() <= 2e-4
    arm.await_verdict("holding", "controller_node isn't active")
    arm.send(arm.chunk(0.0, 0.05, 0.0))
    arm.await_verdict("holding", "chunk of p dropped: controller_node isn't active")
    assert change_state(arm, Transition.TRANSITION_ACTIVATE)
    assert get_state(arm) == "active"
    # Nothing of before is in force any more, although the chunk would have gone on for seconds.
    assert spread(arm.await_ticks(60)) < 1e-4
    arm.await_verdict("holding", "the controller follows again; waiting for a chunk")
    here = arm.tcp()
    arm.send(arm.chunk(0.0, -0.03, 0.0))
    arm.await_motion(1, -0.02, here)


@undisturbed
def test_controller_configured_anew_after_cleanup_moves_the_arm(arm: Arm) -> None:
    for transition in (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
    ):
        assert change_state(arm, transition)
    assert get_state(arm) == "unconfigured"
    assert not arm.peer.node.get_publishers_info_by_topic(f"/{COMMAND_TOPIC}")
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert change_state(arm, transition)
    arm.await_ticks(20)
    assert len(arm.peer.node.get_publishers_info_by_topic(f"/{COMMAND_TOPIC}")) == 1
    arm.await_verdict("holding", "the controller follows again")
    start = arm.tcp()
    arm.send(arm.chunk(0.0, 0.03, 0.0))
    arm.await_motion(1, 0.02, start)


@pytest.fixture
def controller(make_peer, monkeypatch) -> Iterator[Any]:
    """A controller that a test ticks by itself."""
    from vla_ros.nodes.controller_node import ControllerNode

    rclpy.init(args=["--ros-args", "-p", "robot:=panda"])
    node = ControllerNode(is_alone=False)
    node.start()
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def test_order_to_brake_is_obeyed_whenever_in_a_tick_it_comes(controller) -> None:
    model = RobotModel.from_config(ROBOT)
    period_ns = round(1e9 * controller.dt_s)
    sent: list[JointCommand] = []
    publish = controller._link.publish
    controller._link.publish = lambda sending, stamp_ns: (sent.append(sending.ticks[-1][1]), publish(sending, stamp_ns))
    stamp_ns = 0

    def tick(on_solve: Callable[[], None] = lambda: None) -> None:
        """One tick towards a tcp that runs along y at 0.2 m/s, with something happening in its middle."""
        nonlocal stamp_ns
        stamp_ns += period_ns
        positions = sent[-1].positions if sent else model.home
        controller.observe(
            messages.JointStateReader(ROBOT.joint_names, "").read(joint_state(positions, stamp_ns), None)
        )
        target = tool_target(model, stamp_ns, 0.2)
        solve = controller._controller.step
        controller._controller.step = lambda *arguments: (solve(*arguments), on_solve())[0]
        controller.step(stamp_ns, True, target)
        controller._controller.step = solve

    for _ in range(100):
        tick()
    assert np.abs(sent[-1].velocities).max() > 0.05
    braking = threading.Thread(target=controller.brake)
    is_asked = threading.Event()

    def ask_to_brake() -> None:
        braking.start()
        is_asked.set()
        # Until it has looked once, and waits.
        braking.join(timeout=3 * controller.dt_s)

    tick(on_solve=ask_to_brake)
    count = len(sent)
    while braking.is_alive():
        tick()
        braking.join(timeout=controller.dt_s)
    assert is_asked.is_set()
    assert count < len(sent) < count + 240, "it has to brake in well below the second after which it is cut off"
    assert np.abs(sent[-1].velocities).max() <= 2e-4


def joint_state(positions: Any, stamp_ns: int) -> JointState:
    message = JointState(name=list(ROBOT.joint_names), position=[float(value) for value in positions])
    message.header.stamp = messages.to_time(stamp_ns)
    return message


def tool_target(model: RobotModel, stamp_ns: int, speed_m_s: float) -> Any:
    from vla_ros.types import ToolTarget

    T = model.forward_kinematics(model.home).copy()
    T[1, 3] += speed_m_s * stamp_ns * 1e-9
    return ToolTarget(stamp_ns, T, np.array([0.0, speed_m_s, 0.0, 0.0, 0.0, 0.0]))


def test_stop_outlives_the_process_that_was_told(processes, make_peer, patience) -> None:
    person = make_peer("person")
    verdicts = person.hear(DiagnosticArray, "safety/verdict")

    def await_state(process: Any, state: str) -> str:
        patience(
            lambda: process.poll() is not None or (verdicts and verdicts[-1].status[0].message == state),
            f"the filter to be {state}",
        )
        assert process.poll() is None, process.text
        return str(verdicts[-1].status[0].values[1].value)

    first = processes.start_node("motion", robot="panda", source="p")
    await_state(first, "idle")
    person.call(Trigger, "safety/stop")
    await_state(first, "stopped")
    assert first.end() == 0
    verdicts.clear()
    second = processes.start_node("motion", robot="panda", source="p")
    assert "safety/stop was called" in await_state(second, "stopped")
    assert "stopped" in person.call(Trigger, "safety/reset").message
    patience(lambda: verdicts[-1].status[0].message != "stopped", "the filter to be free")


def nudge(arm: Arm) -> None:
    """Sets it in motion along y if it isn't."""
    if arm.state != "running":
        arm.send(arm.chunk(0.0, 0.06, 0.0))


def test_motion_at_500_hz_keeps_its_grid_and_limits_and_reports_on_itself(
    processes, make_peer, patience, tmp_path
) -> None:
    path = tmp_path / "controller.yaml"
    path.write_text((package_share() / "config" / "controller.yaml").read_text().replace("250.0", "500.0"))
    arm = Arm(make_peer("fake_arm"), patience)
    process = processes.start_node("motion", robot="panda", source="p", controller=path)
    patience(lambda: arm.commands or process.poll() is not None, "the first command")
    assert process.poll() is None, process.text
    start = arm.tcp()
    # Again and again where a busy machine has ended the motion.
    patience(lambda: (arm.tcp() - start)[1] > 0.03 or nudge(arm), "motion")
    patience(lambda: arm.state != "running", "its end")

    def newest(node: str) -> dict[str, str]:
        statuses = [status for message in list(arm.diagnostics) for status in message.status if node in status.name]
        return {item.key: item.value for item in statuses[-1].values} if statuses else {}

    nodes = ("motion_loop", "controller_node", "safety_node")
    patience(lambda: all(newest(node) for node in nodes), "diagnostics")
    steps_ns = np.diff([messages.to_ns(message.header.stamp) for message in list(arm.commands)])
    assert np.median(steps_ns) == 2_000_000
    assert np.all(steps_ns % 2_000_000 == 0)
    report = arm.judge()
    assert report.is_clean, [str(violation) for violation in report.first_violations.values()]
    assert report.peak_velocity_fraction > 0.02
    loop, controller, safety = (newest(node) for node in nodes)
    assert float(loop["rate_hz"]) > 300.0
    assert {"missed", "tick_p50_s", "tick_p99_s", "late_p99_s"} <= loop.keys()
    assert 0.0 <= float(controller["clip_rate"]) <= 1.0
    assert 0.0 < float(controller["sigma_min"]) < 1.0 or controller["reason"] != "following"
    assert 0.0 <= float(controller["jerk_fraction"]) <= 1.0
    assert controller["interface"] == "position"
    assert {"chunk_age_s", "chunk_to_command_p50_s", "chunk_to_command_p99_s"} <= safety.keys()
    assert 0.0 < float(safety["chunk_to_command_p50_s"]) < 1.0


def test_velocity_interface_without_a_watchdog_does_not_start_and_says_why(processes, tmp_path) -> None:
    robot = tmp_path / "panda.yaml"
    text = (package_share() / "config" / "robots" / "panda.yaml").read_text()
    robot.write_text(text.replace("interface: position", "interface: velocity"))
    process = processes.start_node("motion", robot=robot)
    assert process.wait(60.0) == 2
    assert "names no watchdog" in process.text
    assert "set velocity_watchdog_s" in process.text


def test_interface_that_the_robot_does_not_have_is_refused_by_name(processes) -> None:
    process = processes.start_node("motion", robot="panda", interface="telepathy")
    assert process.wait(60.0) == 2
    assert "'telepathy' isn't one of this robot's; choose from: position" in process.text.splitlines()[-1]


def test_filter_alone_ticks_at_the_controllers_rate(processes, make_peer, patience, tmp_path) -> None:
    path = tmp_path / "controller.yaml"
    path.write_text((package_share() / "config" / "controller.yaml").read_text().replace("250.0", "100.0"))
    arm = Arm(make_peer("fake_arm"), patience)
    targets = arm.peer.hear(MultiDOFJointTrajectory, "target")
    process = processes.start_node("safety_node", robot="panda", source="p", controller=path)
    patience(lambda: arm.state or process.poll() is not None, "a verdict")
    assert process.poll() is None, process.text
    patience(lambda: len(targets) > 50 or nudge(arm), "targets")
    steps_ns = np.diff([messages.to_ns(target.header.stamp) for target in list(targets)])
    assert np.median(steps_ns) == 10_000_000
