"""The whole stack in front of a mocked driver, as in a lab: every check before the first motion, and what goes wrong.

What the arm was told is judged by the mock, at its own rate; what happens has a name on `/diagnostics`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import takewhile

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")
pytest.importorskip("franka_msgs")
pytest.importorskip("ur_dashboard_msgs")

from mocked_day import ERROR, FORCE_N, OK, OTHER, WARN, Lab
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.hardware.readiness import NOT_LOOKED_AT
from vla_ros.nodes import messages
from vla_ros.sim.cameras import CameraRenderer
from vla_ros.sim.world import World

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]

ROBOTS = (*(pytest.param(name, marks=pytest.mark.lengthy) for name in ("fr3", "panda", "ur10e")), "ur5e")
CHECKS = ["driver", "arm", "joint_states", "settings", "controller", "tf", "cameras", "commands", "policy"]
TASKS = ("pick up the red block", "pick up the green block", "pick up the blue block")
LED = "the arm may be led"


@pytest.fixture(scope="module", params=ROBOTS)
def lab(request, module_processes, make_module_peer, patience, tmp_path_factory) -> Iterator[Lab]:
    lab = Lab(module_processes, make_module_peer("person"), patience, request.param, tmp_path_factory.mktemp("lab"))
    try:
        lab.await_ready()
        yield lab
    finally:
        lab.close()


@pytest.fixture(autouse=True)
def judged(lab: Lab) -> Iterator[None]:
    """A test begins with an arm that may be led; whatever it does, the arm is told nothing past its limits."""
    for label in ("motion", "policy_node"):
        if not lab.is_running(label):
            lab.start_again(label)
    # What a test that failed has left behind.
    for name, value in (("mock.lost_cameras", ""), ("mock.force_n", 0.0)):
        assert lab.peer.set_parameter("mock_node", name, value).successful
    if lab.said and not lab.said[-1].is_ready:
        lab.peer.call(Trigger, "hardware/recover")
        lab.await_ready()
    lab.is_stop_asked_for = False
    lab.told.clear()
    lab.commands.clear()
    lab.extremes()
    yield
    commands = list(lab.commands)
    if commands:
        stamps = np.array([messages.to_ns(message.header.stamp) for message in commands])
        report = judge_limits(stamps, np.array([message.position for message in commands]), lab.model)
        assert report.is_clean, [str(violation) for violation in report.first_violations.values()]
    mocked = [item for item in list(lab.told) if item.node == "mock_node"]
    assert lab.is_stop_asked_for or not [item for item in mocked if item.message.startswith(("REFLEX", "PROTECTIVE"))]
    if lab.interface == "trajectory":
        # A staircase of positions has the steps of its rate, and more where the machine stalls: what a UR makes of it
        # is servoj's, and past its limits a protective stop. A Franka feels every step.
        extremes = lab.extremes()
        assert all(extremes[kind] <= 1.0 + 1e-3 for kind in ("velocity", "acceleration", "jerk")), extremes


def test_every_check_is_told_and_holds_before_the_first_motion(lab: Lab) -> None:
    assert list(lab.said[-1].checks) == CHECKS
    before = list(takewhile(lambda state: not state.is_ready, lab.said))
    assert before
    for state in before:
        # Nothing is asked for before what it relies upon: the reason is the first that doesn't hold, and the last
        # that was looked at.
        problems = list(state.checks.values())
        first = next(index for index, problem in enumerate(problems) if problem)
        assert state.reason == f"{CHECKS[first]}: {problems[first]}"
        assert set(problems[first + 1 :]) <= {NOT_LOOKED_AT}
    values = lab.await_told("hardware_node", OK, LED).values
    assert {name: values[name] for name in CHECKS} == dict.fromkeys(CHECKS, "ok")
    assert any(event.get("event") == "hardware" and event["is_ready"] for event in lab.events)


def test_images_show_the_mocked_cell_as_it_is(lab: Lab) -> None:
    lab.await_motion(TASKS[2])
    lab.give("")
    lab.await_standing()
    images = lab.images()
    world = World(lab.config, lab.rig, 0)
    with CameraRenderer(world.scene) as renderer:
        before = renderer.render(world.snapshot())
        world.place_arm(np.array(lab.positions[-1]), lab.opening)
        for name in world.object_poses():
            world.place_object(name, lab.truth[name])
        now = renderer.render(world.snapshot())
    for name, image in images.items():
        gap, gap_before = (np.abs(image.astype(int) - drawn[name]).mean() for drawn in (now, before))
        # By what the arm trembles, and measured openings are rounded; the arm has moved since the scene's beginning.
        assert gap < 0.1 * gap_before, name


def test_scripted_policy_picks_a_block_up(lab: Lab) -> None:
    lab.await_motion(TASKS[0])
    lab.wait(lambda: "block_red" in lab.truth and lab.truth["block_red"][2, 3] > 0.08, "the red block in the air", 60.0)


def test_another_policy_takes_over_in_the_middle(lab: Lab) -> None:
    lab.await_motion(TASKS[1])
    swap = lab.processes.start_command("swap", str(lab.other))
    assert swap.wait(40.0) == 0, swap.text
    lab.source = OTHER
    assert lab.said[-1].is_ready
    lab.await_motion(TASKS[2])
    wanted = {"policy": OTHER, "task": TASKS[2]}
    lab.wait(
        lambda: any(item.values.items() >= wanted.items() for item in list(lab.told) if item.node == "policy_node"),
        f"{wanted} on /diagnostics",
    )


def test_stop_of_the_arm_is_named_latched_and_led_out_of_on_request_alone(lab: Lab) -> None:
    lab.await_motion(TASKS[0])
    is_franka = lab.driver.kind == "franka"
    lab.is_stop_asked_for = True
    assert lab.peer.call(Trigger, "mock/reflex" if is_franka else "mock/protective_stop").success
    lab.await_told("hardware_node", ERROR, "arm:", "reflex" if is_franka else "protective stop", "hardware/recover")
    lab.await_standing()
    status = lab.processes.start_command("hardware", "status")
    assert status.wait(40.0) == 1
    assert "isn't led" in status.text
    # It lasts until somebody asks: half of it is over by itself after a while.
    time.sleep(5.5)
    assert not lab.said[-1].is_ready
    recover = lab.processes.start_command("hardware", "recover")
    assert recover.wait(60.0) == 0, recover.text
    lab.await_ready()
    lab.await_motion(TASKS[1])


def test_joint_states_that_fall_silent_hold_the_arm_and_it_goes_on_by_itself(lab: Lab) -> None:
    lab.await_motion(TASKS[2])
    # Diagnostics come once a second.
    assert lab.peer.set_parameter("mock_node", "mock.silence_s", 1.5).successful
    lab.peer.call(Trigger, "mock/silence")
    lab.await_told("hardware_node", ERROR, "joint_states: none for")
    lab.await_ready()
    lab.await_motion()


@pytest.mark.lengthy
def test_camera_that_is_lost_holds_the_arm_and_it_goes_on_by_itself(lab: Lab) -> None:
    lab.await_motion(TASKS[0])
    assert lab.peer.set_parameter("mock_node", "mock.lost_cameras", "base").successful
    lab.await_told("hardware_node", WARN, "cameras: camera base at 0.0 Hz")
    lab.await_told("camera_node", WARN, "camera base at 0.0 Hz")
    lab.await_told("policy_node", WARN, "holding: no image from camera base for")
    lab.await_standing()
    assert lab.said[-1].is_ready
    lab.told.clear()
    assert lab.peer.set_parameter("mock_node", "mock.lost_cameras", "").successful
    lab.await_told("hardware_node", OK, LED)
    lab.await_motion()


@pytest.mark.lengthy
def test_policy_that_is_killed_is_named_the_arm_holds_and_it_goes_on_with_one_that_is_started(lab: Lab) -> None:
    lab.await_motion(TASKS[1])
    lab.kill("policy_node")
    lab.await_told("hardware_node", WARN, "policy: policy_node has given no answer")
    lab.await_standing()
    assert lab.said[-1].is_ready
    lab.told.clear()
    lab.start_again("policy_node")
    lab.await_told("policy_node", OK, "no task: holding")
    lab.await_told("hardware_node", OK, LED)
    # What was begun is nobody's any more.
    assert lab.is_standing()
    lab.await_motion(TASKS[2])


def test_force_past_the_limit_stops_the_arm_until_it_is_recovered(lab: Lab) -> None:
    lab.await_motion(TASKS[1])
    assert lab.peer.set_parameter("mock_node", "mock.force_n", 2.0 * FORCE_N).successful
    lab.await_told("hardware_node", ERROR, "force of")
    lab.await_standing()
    assert lab.peer.set_parameter("mock_node", "mock.force_n", 0.0).successful
    time.sleep(0.5)
    assert not lab.said[-1].is_ready
    assert lab.peer.call(Trigger, "hardware/recover").success
    lab.await_ready()
    lab.await_motion(TASKS[2])


def test_second_commander_of_the_arm_is_named_and_the_arm_holds(lab: Lab) -> None:
    topic = lab.config.command.using(lab.interface).topic
    rival = lab.peer.node.create_publisher(JointTrajectory if "trajectory" in topic else Float64MultiArray, topic, 1)
    lab.await_told("hardware_node", ERROR, "commands:", "published by", "person")
    lab.await_standing()
    lab.peer.node.destroy_publisher(rival)
    lab.await_ready()


@pytest.mark.lengthy
def test_motion_process_that_is_started_again_leads_the_arm_on_from_where_it_stopped(lab: Lab) -> None:
    lab.await_motion(TASKS[0])
    lab.kill("motion")
    lab.await_standing()
    lab.start_again("motion")
    # Others see the dead one for twenty seconds more.
    lab.wait(lambda: not lab.said[-1].is_ready, "hardware_node to notice")
    lab.await_ready()
    lab.await_motion(TASKS[1])


def test_kill_of_the_motion_process_is_named_and_the_arm_stops_within_its_limits(lab: Lab) -> None:
    lab.await_motion(TASKS[0])
    lab.kill("motion")
    lab.await_told("hardware_node", ERROR, "commands: nothing on /safety/verdict")
    lab.await_standing()
