"""The motion path before an arm that somebody watches over: dry run, hardware_node's word, speed scaling, a button."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from plain_arm import COMMAND_TOPIC, Arm
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray, String

from vla_ros.config import package_share
from vla_ros.hardware.readiness import HardwareState

pytestmark = pytest.mark.ros

LINE_M = 0.06


class Hardware:
    """hardware_node's word, said ten times a second until it falls silent."""

    def __init__(self, peer: Any) -> None:
        self._peer, self.is_silent = peer, False
        self.reason, self.speed_scaling = "driver: not there", 1.0
        self._publisher = peer.speak(String, "hardware/state", is_latched=True)
        peer.node.create_timer(0.1, self._say)

    def _say(self) -> None:
        if not self.is_silent:
            state = HardwareState(not self.reason, self.reason, self.speed_scaling, self._peer.now_ns())
            self._publisher.publish(String(data=state.to_json()))


def start(processes: Any, make_peer: Any, patience: Any, **parameters: Any) -> Arm:
    arm = Arm(make_peer("fake_arm"), patience, parameters.pop("states", "joint_states"))
    arm.sent = arm.peer.hear(Float64MultiArray, COMMAND_TOPIC)
    arm.shown = arm.peer.hear(JointState, "dry_run/joint_command")
    arm.process = processes.start_node("motion", robot="panda", source="p", **parameters)
    return arm


@pytest.fixture
def watched(processes: Any, make_peer: Any, patience: Any) -> Iterator[tuple[Arm, Hardware]]:
    """A motion path behind a driver's topics, and what stands for hardware_node."""
    hardware = Hardware(make_peer("hardware_node"))
    # A Panda's driver has its raw joint states elsewhere, and takes trajectories.
    states = "franka/joint_states"
    arm = start(processes, make_peer, patience, hardware="mock", interface="position", states=states)
    yield arm, hardware
    assert arm.judge().is_clean


def lead(arm: Arm, way_m: float = LINE_M, duration_s: float = 1.0, share: float = 0.5) -> None:
    """Sends a chunk along y, anew while none is taken, and waits until the arm has gone a share of the way."""
    start_m = arm.tcp()

    def is_there() -> bool:
        if arm.state != "running":
            arm.send(arm.chunk(0.0, way_m, 0.0, duration_s=duration_s))
            time.sleep(0.05)
        return float(arm.tcp()[1] - start_m[1]) > share * way_m

    arm.patience(is_there, f"{share * way_m} m; the filter says {arm.state}: {arm.reasons}")


def _tries(arm: Arm) -> None:
    arm.send(arm.chunk(0.0, LINE_M, 0.0))
    time.sleep(0.05)


def ready(arm: Arm, hardware: Hardware) -> None:
    hardware.reason = ""
    arm.patience(lambda: len(arm.commands) > 60, "commands after hardware_node gave its word")


def test_an_arm_that_takes_only_near_targets_is_led_on_from_where_it_stands(watched: tuple[Arm, Hardware]) -> None:
    """What it missed meanwhile left the commands out of its reach."""
    arm, hardware = watched
    ready(arm, hardware)
    arm.reach_rad, arm.expects_fault = 0.04, True
    lead(arm)
    arm.await_rest()
    arm.is_deaf = True
    arm.send(arm.chunk(0.0, 3.0 * LINE_M, 0.0, duration_s=2.0))
    arm.patience(lambda: arm.state == "fault", "the filter to see that the arm stays behind")
    gaps_rad = np.abs(np.array([message.position for message in arm.commands[-500:]]) - arm.positions).max(axis=1)
    assert gaps_rad.max() > arm.reach_rad
    arm.is_deaf = False

    def gap_rad() -> float:
        return float(np.abs(np.array(arm.commands[-1].position) - arm.positions).max())

    arm.patience(lambda: gap_rad() < 1e-3, "commands where the arm stands")
    there_m = arm.model.forward_kinematics(np.array(arm.positions))[1, 3]

    def has_followed() -> bool:
        _tries(arm)
        return float(arm.model.forward_kinematics(np.array(arm.positions))[1, 3] - there_m) > 0.5 * LINE_M

    arm.patience(has_followed, f"the arm to be led on; the filter says {arm.state}: {arm.reasons}")


def test_dry_run_shows_what_would_be_done_and_tells_the_arm_nothing(processes, make_peer, patience) -> None:
    arm = start(processes, make_peer, patience, armed="false")
    told, arm.commands = arm.commands, arm.shown
    patience(lambda: len(arm.shown) > 60, "the dry run")
    before = np.array(arm.shown[0].position)
    lead(arm)
    assert arm.sent == []
    assert told == []
    # It would be further away than any tracking tolerance, and isn't a fault.
    assert "fault" not in arm.state

    assert arm.peer.set_parameter("controller_node", "armed", True).successful
    patience(lambda: len(arm.sent) > 60, "commands")
    # Commands begin where the arm stands, not where the dry run was.
    np.testing.assert_allclose(arm.sent[0].data, before, atol=1e-3)
    spread_rad = float(np.ptp([list(message.data) for message in arm.sent[:50]], axis=0).max())
    assert spread_rad < 1e-6
    arm.commands = told
    patience(lambda: len(arm.commands) > 50, "joint_command")
    lead(arm)

    # Disarmed in motion it brakes first, and is told nothing from then on.
    assert arm.peer.set_parameter("controller_node", "armed", False).successful
    patience(lambda: _is_silent(arm), "silence after being disarmed")
    assert _last_speed(arm) <= 1e-4
    assert arm.judge().is_clean


def _last_speed(arm: Arm) -> float:
    """Of the fastest joint at the last command that the arm was told, rad/s."""
    np.testing.assert_allclose(arm.sent[-1].data, arm.commands[-1].position, atol=1e-12)
    return float(np.abs(arm.commands[-1].velocity).max())


def _is_silent(arm: Arm) -> bool:
    count = len(arm.sent)
    time.sleep(0.3)
    return len(arm.sent) == count


def test_armed_takes_only_true_or_false(processes, make_peer, patience) -> None:
    arm = start(processes, make_peer, patience)
    patience(lambda: arm.commands, "the first command")
    answer = arm.peer.set_parameter("controller_node", "armed", "yes")
    assert not answer.successful


def test_arm_is_told_nothing_before_hardware_node_has_given_its_word(watched, patience) -> None:
    arm, hardware = watched
    hardware.reason = "cameras: nothing on camera/base/camera_info"
    arm.patience(lambda: _tries(arm) or "cameras: nothing on" in arm.reasons, "a chunk to be refused for it")
    time.sleep(0.5)
    assert arm.sent == []
    assert arm.commands == []
    ready(arm, hardware)
    lead(arm)


@pytest.mark.parametrize("event", ["a fault", "silence"])
def test_arm_that_must_not_be_led_brakes_within_its_limits_and_goes_on_from_where_it_stands(
    event: str, watched, patience
) -> None:
    arm, hardware = watched
    ready(arm, hardware)
    lead(arm, 0.15, 1.0, 0.2)
    if event == "a fault":
        hardware.reason = "arm: the arm is in a protective stop"
        patience(lambda: "protective stop" in arm.reasons, "the reason in a verdict")
    else:
        hardware.is_silent = True
        patience(lambda: "hardware_node has been silent" in arm.reasons, "the reason in a verdict")
    patience(lambda: _is_silent(arm), "silence")
    assert _last_speed(arm) <= 1e-4
    # Somebody moves it by hand meanwhile.
    there = [value + 0.05 for value in arm.positions]
    arm.positions = list(there)
    time.sleep(0.3)
    count = len(arm.sent)
    hardware.reason, hardware.is_silent = "", False
    patience(lambda: len(arm.sent) > count + 60, "commands again")
    np.testing.assert_allclose(arm.sent[count].data, there, atol=1e-3)
    # What the judge sees is one motion until the silence, and one after it.
    del arm.commands[: len(arm.commands) - 40]
    lead(arm)


def test_speed_scaling_of_the_arm_stretches_the_motion(watched, patience) -> None:
    arm, hardware = watched
    took_s = []
    for scaling in (1.0, 0.4):
        hardware.speed_scaling = scaling
        ready(arm, hardware)
        time.sleep(1.0)
        begin_s = time.monotonic()
        lead(arm, LINE_M, 1.5, 0.8)
        took_s.append(time.monotonic() - begin_s)
        patience(lambda: arm.state == "holding", "the end")
    # 2.5 times as long, but for the start and a busy machine.
    assert 1.6 < took_s[1] / took_s[0] < 4.0


def test_emergency_stop_that_is_pressed_or_falls_silent_stops_and_reset_is_refused_meanwhile(
    processes, make_peer, patience, tmp_path
) -> None:
    safety = tmp_path / "safety.yaml"
    limits = (package_share() / "config" / "safety.yaml").read_text()
    safety.write_text(f"{limits}emergency_stop: {{topic: safety/button, heartbeat_s: 0.5}}\n")
    arm = start(processes, make_peer, patience, safety=str(safety))
    patience(lambda: arm.state == "stopped" and "safety/button yet" in arm.reasons, "a stop before the button spoke")
    assert not arm.call("safety/reset").success

    person = make_peer("button")
    button, says = person.speak(Bool, "safety/button"), [False]
    person.node.create_timer(0.1, lambda: [button.publish(Bool(data=value)) for value in says])
    patience(lambda: arm.call("safety/reset").success, "reset while the button is free")
    lead(arm)
    says[:] = [True]
    arm.patience(lambda: arm.state == "stopped" and "is pressed" in arm.reasons, "the stop")
    assert "is pressed" in arm.call("safety/reset").message
    says[:] = [False]
    patience(lambda: arm.call("safety/reset").success, "reset after release")
    lead(arm)
    says.clear()
    arm.patience(lambda: arm.state == "stopped" and "nothing on" in arm.reasons, "the stop by silence")
    assert arm.judge().is_clean
