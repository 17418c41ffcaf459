"""teleop_node in front of the real motion path: what a gamepad, a hand, a terminal and a script make the arm do."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, Transform
from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint

from vla_ros.config import load_yaml, package_share
from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.nodes import chunk_messages, messages
from vla_ros.nodes.handovers import Handovers
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

pytestmark = pytest.mark.ros

ROBOT = load_robot("panda")
DEAD_MAN = 10


class Cell:
    """An arm of a few lines behind the real `motion`, a policy that a test plays, and a gamepad."""

    def __init__(self, peer: Any, processes: Any, wait: Callable[..., Any]) -> None:
        self.peer, self.wait, self.processes = peer, wait, processes
        self.model = RobotModel.from_config(ROBOT)
        self._positions = list(self.model.home)
        self.commands: list[JointState] = peer.hear(JointState, "joint_command")
        self.verdicts: list[DiagnosticArray] = peer.hear(DiagnosticArray, "safety/verdict")
        self.chunks: list[MultiDOFJointTrajectory] = peer.hear(MultiDOFJointTrajectory, "teleop/action_chunk")
        self.told: list[DiagnosticArray] = peer.hear(DiagnosticArray, "/diagnostics")
        self._events: list[String] = peer.hear(String, "episode/event")
        self._states = peer.speak(JointState, "joint_states")
        self._policy = peer.speak(MultiDOFJointTrajectory, "policies/p/action_chunk")
        self._joy_out = peer.speak(Joy, "joy")
        self.joy: Joy | None = None
        self.device, self.node = "", None
        peer.node.create_timer(0.02, self._publish)
        peer.node.create_timer(0.05, self._publish_joy)
        self.motion = processes.start_node("motion", robot="panda", source="p")
        wait(lambda: self.commands or self.motion.poll() is not None, "the first command")
        assert self.motion.poll() is None, self.motion.text

    def _publish(self) -> None:
        newest = self.commands[-1:]
        self._positions = newest[0].position if newest else self._positions
        message = JointState(name=list(ROBOT.joint_names), position=self._positions)
        message.header.stamp = self.peer.node.get_clock().now().to_msg()
        self._states.publish(message)

    def _publish_joy(self) -> None:
        if self.joy is not None:
            self._joy_out.publish(self.joy)

    def push(self, x: float = 0.0, y: float = 0.0, is_held: bool = True, button: int | None = None) -> None:
        """The gamepad from now on."""
        buttons = [0] * 15
        buttons[DEAD_MAN] = int(is_held)
        if button is not None:
            buttons[button] = 1
        self.joy = Joy(axes=[y, x, 0.0, 0.0, 1.0, 1.0], buttons=buttons)

    def start(self, device: str, **parameters: Any) -> Any:
        """teleop_node with a device, in the place of the one before, when it hears the arm."""
        if self.node is not None and self.node.poll() is None:
            if self.device == device:
                return self.node
            self.end()
        self.device = device
        self.node = self.processes.start_node("teleop_node", robot="panda", device=device, **parameters)
        self.told.clear()
        self.wait(lambda: self.status() or self.node.poll() is not None, "teleop_node")
        return self.node

    def end(self) -> None:
        """Ends teleop_node; of two there'd be no knowing who leads."""
        if self.node is not None and self.node.poll() is None:
            assert self.node.end() == 0, self.node.text
            assert "Traceback" not in self.node.text
        topic = "/teleop/action_chunk"
        self.wait(lambda: not self.peer.node.get_publishers_info_by_topic(topic), "its publisher to go")

    def status(self) -> str:
        """What teleop_node said last."""
        found = [status for message in list(self.told) for status in message.status if "teleop_node" in status.name]
        return found[-1].message if found else ""

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(message.data) for message in list(self._events)]

    def verdict(self) -> str:
        """State, source and reasons of the newest verdict."""
        status = self.verdicts[-1].status[0]
        return "; ".join([status.message, *(f"{item.key}={item.value}" for item in status.values)])

    def tcp(self) -> FloatArray:
        """Where the newest command has the tcp, m in base."""
        return self.model.forward_kinematics(np.array(self.commands[-1].position))[:3, 3]

    def is_running(self) -> bool:
        return self.verdicts[-1].status[0].message == "running"

    def await_rest(self) -> FloatArray:
        """Waits until the last 0.2 s of commands are at rest; the tcp there."""

        def is_at_rest() -> bool:
            newest = [message.position for message in self.commands[-50:]]
            return len(newest) == 50 and float(np.ptp(newest, axis=0).max()) < 1e-6

        self.wait(is_at_rest, "the arm to rest")
        return self.tcp()

    def select(self, source: str) -> None:
        assert self.peer.set_parameter("safety_node", "source", source).successful

    def selected(self) -> str:
        request = GetParameters.Request(names=["source"])
        return str(self.peer.call(GetParameters, "safety_node/get_parameters", request).values[0].string_value)

    def send_policy_chunk(self, y_m: float, duration_s: float = 2.0) -> None:
        """The policy moves the tcp along base y."""
        message = MultiDOFJointTrajectory(joint_names=["tcp_delta"])
        message.header.frame_id = ROBOT.base_frame
        message.header.stamp = self.peer.node.get_clock().now().to_msg()
        for share in np.linspace(0.1, 1.0, 10).tolist():
            transform = Transform()
            transform.rotation.w, transform.translation.y = 1.0, share * y_m
            point = MultiDOFJointTrajectoryPoint(transforms=[transform])
            point.time_from_start = messages.to_duration(share * duration_s)
            message.points.append(point)
        self.peer.matched(self._policy).publish(message)

    def limits_are_kept(self) -> bool:
        commands = list(self.commands)
        stamps = np.array([messages.to_ns(message.header.stamp) for message in commands])
        return judge_limits(stamps, np.array([message.position for message in commands]), self.model).is_clean


@pytest.fixture(scope="module")
def running_cell(module_processes, make_module_peer, patience) -> Iterator[Cell]:
    module_processes.close()
    cell = Cell(make_module_peer("fake_arm"), module_processes, patience)
    yield cell
    assert cell.motion.end() == 0, cell.motion.text


@pytest.fixture
def cell(running_cell: Cell) -> Iterator[Cell]:
    """The arm at rest with `p` selected; what was sent to it meanwhile keeps every limit."""
    cell = running_cell
    assert cell.motion.poll() is None, cell.motion.text
    cell.joy = None
    cell.peer.call(Trigger, "safety/reset")
    cell.select("nobody")
    cell.await_rest()
    cell.select("p")
    cell.commands.clear()
    cell.verdicts.clear()
    cell.chunks.clear()
    cell._events.clear()
    cell.wait(lambda: cell.verdicts and len(cell.commands) > 50, "commands")
    yield cell
    assert cell.limits_are_kept()


@pytest.fixture
def gamepad(cell: Cell) -> Any:
    node = cell.start("gamepad")
    cell.told.clear()
    cell.push(is_held=False)
    cell.wait(lambda: cell.status() == "lets go", "teleop_node to hear the gamepad")
    return node


def test_script_leads_the_arm_there_and_ends_by_itself(cell: Cell, tmp_path) -> None:
    start = cell.await_rest()
    path = tmp_path / "script.yaml"
    path.write_text(
        "steps:\n  - {duration_s: 1.0, move: [0.0, -0.06, 0.03, 0, 0, 0]}\n  - {duration_s: 0.8, opening: 0.0}\n"
    )
    command = cell.processes.start_command(
        "teleop", "--robot", "panda", "--device", "scripted", "--script", str(path), "--json"
    )
    cell.wait(lambda: command.poll() is not None, "the script's end")
    assert command.returncode == 0, command.text
    done = json.loads(command.text.splitlines()[-1])
    assert (done["device"], done["engagements"]) == ("scripted", 1)
    assert done["chunks"] > 60
    # The inverse kinematics' and the pursuit's last millimetre.
    np.testing.assert_allclose(cell.await_rest() - start, [0.0, -0.06, 0.03], atol=2e-3)


def test_keys_of_a_real_terminal_lead_the_arm_until_they_are_let_go(cell: Cell) -> None:
    cell.end()
    start = cell.await_rest()
    pid, terminal = pty.fork()
    if pid == 0:
        words = [os.sys.executable, "-m", "vla_ros.cli", "teleop", "--robot", "panda", "--speed", "1.0", "--json"]
        os.execvp(words[0], words)
    shown = ""

    def read() -> str:
        nonlocal shown
        while select.select([terminal], [], [], 0.0)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                break
        return shown

    def hold(key: bytes) -> None:
        os.write(terminal, key)
        read()

    try:
        # Without a notice: a key that is held before it can lead has to be let go first.
        cell.wait(lambda: "lets go | frame" in read() and "tcp +" in shown, "its line")
        assert "w/s forward/back" in shown
        cell.wait(lambda: hold(b"A") or cell.tcp()[1] > start[1] + 0.03, "motion to the left while A repeats")
        cell.wait(lambda: "holding" in cell.verdict(), "the arm to hold without the key")
        held = cell.await_rest()
        hold(b"-")
        cell.wait(lambda: "speed 70 %" in read(), "the slower speed")
        hold(b"q")
        _, status = cell.wait(lambda: read() and os.waitpid(pid, os.WNOHANG) != (0, 0) and (pid, 0), "the end")
        assert json.loads(read().strip().splitlines()[-1])["exit_code"] == status
        np.testing.assert_allclose(cell.await_rest(), held, atol=1e-6)
    finally:
        os.close(terminal)


def test_hand_leads_from_where_it_took_hold_and_in_its_own_axes(cell: Cell, tmp_path: Path) -> None:
    # A busy machine may hold this hand up for longer than a hand may be silent, and it would take hold anew.
    config = load_yaml(package_share() / "config" / "teleop.yaml")
    config["pose"] |= {"timeout_s": 5.0, "clutch_timeout_s": 5.0}
    (tmp_path / "teleop.yaml").write_text(yaml.safe_dump(config))
    cell.start("pose", config=tmp_path / "teleop.yaml")
    start = cell.await_rest()
    pose = PoseStamped()
    pose.pose.orientation.w = 1.0
    pose.pose.position.x, pose.pose.position.y = 5.0, 1.0
    poses, clutch = cell.peer.speak(PoseStamped, "teleop/pose"), cell.peer.speak(Bool, "teleop/clutch")
    cell.peer.matched(poses)
    cell.peer.matched(clutch)
    is_clutched = False
    is_over = threading.Event()

    def stream() -> None:
        while not is_over.wait(0.02):
            poses.publish(pose)
            clutch.publish(Bool(data=is_clutched))

    thread = threading.Thread(target=stream, daemon=True)
    thread.start()
    try:
        cell.wait(lambda: cell.status() == "lets go", "teleop_node to hear the hand")
        is_clutched = True
        cell.wait(lambda: "running" in cell.verdict(), "the clutch to engage")
        # OpenXR's y is up, and -z forward.
        for _ in range(25):
            pose.pose.position.y += 0.002
            pose.pose.position.z -= 0.0012
            time.sleep(0.02)
        cell.wait(lambda: np.abs(cell.tcp() - start - [0.03, 0.0, 0.05]).max() < 2e-3, "the tool to follow")
        is_clutched = False
        cell.wait(lambda: "holding" in cell.verdict(), "the arm to hold")
        held = cell.await_rest()
        pose.pose.position.z += 0.01
        begin = len(cell.commands)
        cell.wait(lambda: len(cell.commands) > begin + 50, "commands")
        np.testing.assert_allclose(cell.tcp(), held, atol=1e-6)
    finally:
        is_over.set()
        thread.join()


def test_stick_moves_the_arm_only_while_the_dead_man_switch_is_held(cell: Cell, gamepad: Any) -> None:
    start = cell.await_rest()
    cell.push(y=1.0, is_held=False)
    begin = len(cell.commands)
    cell.wait(lambda: len(cell.commands) > begin + 50, "commands")
    np.testing.assert_allclose(cell.tcp(), start, atol=1e-6)
    assert not cell.chunks
    cell.push(y=1.0)
    cell.wait(lambda: cell.tcp()[1] > start[1] + 0.03, "motion to the left")
    cell.push(y=1.0, is_held=False)
    cell.wait(lambda: "holding" in cell.verdict() and "source=teleop" in cell.verdict(), "the arm to hold")
    end = cell.await_rest()
    # Straight to the left: what is left is the inverse kinematics'.
    np.testing.assert_allclose((end - start)[[0, 2]], 0.0, atol=2e-3)
    sent = len(cell.chunks)
    begin = len(cell.commands)
    cell.wait(lambda: len(cell.commands) > begin + 50, "commands")
    assert len(cell.chunks) == sent


def test_chunks_read_as_a_policys_absolute_poses_that_end_at_rest(cell: Cell, gamepad: Any) -> None:
    cell.push(x=0.5)
    cell.wait(lambda: len(cell.chunks) > 10, "chunks")
    cell.push(is_held=False)
    cell.await_rest()
    for message in cell.chunks[4:10]:
        chunk = chunk_messages.from_tool_chunk_message(message, "teleop", ROBOT.tcp_frame, ROBOT.base_frame)
        assert chunk.frame == "absolute"
        assert chunk.openings is None
        np.testing.assert_allclose(np.diff(chunk.time_from_start_s), 0.025, atol=1e-6)
        steps = np.linalg.norm(np.diff(chunk.transforms[:, :3, 3], axis=0), axis=1)
        assert steps[-1] < 0.2 * max(steps.max(), 1e-4)


def test_takeover_holds_the_arm_after_release_until_the_policy_is_selected_again(cell: Cell, gamepad: Any) -> None:
    start = cell.await_rest()
    # Again and again: where the machine stands still, a chunk comes too late.
    cell.wait(lambda: cell.is_running() or cell.send_policy_chunk(0.10, 3.0), "the policy to move the arm")
    cell.wait(lambda: abs(cell.tcp()[1] - start[1]) > 0.01 or cell.send_policy_chunk(0.10, 3.0), "its motion")
    cell.push(x=0.5)
    cell.wait(lambda: "source=teleop" in cell.verdict(), "teleop to have the arm")
    cell.wait(lambda: cell.selected() == "teleop", "the parameter to say so")
    there = cell.tcp()
    cell.wait(lambda: cell.tcp()[0] > there[0] + 0.02, "motion forwards")
    cell.push(is_held=False)
    cell.wait(lambda: "holding" in cell.verdict(), "the arm to hold")
    held = cell.await_rest()
    cell.send_policy_chunk(0.05)
    cell.wait(lambda: "chunk of p while the selected source is teleop" in cell.verdict(), "the policy's refusal")
    np.testing.assert_allclose(cell.await_rest(), held, atol=1e-6)
    cell.select("p")
    cell.wait(lambda: cell.tcp()[1] < held[1] - 0.02 or cell.send_policy_chunk(-0.05, 1.0), "the policy to go on")
    wanted = ("intervention_start", "intervention_end")
    told = [(event["event"], event["source"]) for event in cell.events if event["event"] in wanted]
    assert told == [("intervention_start", "p"), ("intervention_end", "p")]
    begin_ns, end_ns = (event["stamp_ns"] for event in cell.events if event["event"] in wanted)
    assert 0 < end_ns - begin_ns < 60e9


def test_teleoperation_from_the_start_is_no_intervention(cell: Cell, gamepad: Any) -> None:
    cell.push()
    cell.wait(lambda: "source=teleop" in cell.verdict(), "teleop to have the arm")
    cell.push(is_held=False)
    cell.wait(lambda: "holding" in cell.verdict(), "the arm to hold")
    cell.select("p")
    cell.wait(lambda: {"p"} <= {event.get("source") for event in cell.events}, "the change back")
    assert not [event for event in cell.events if event["event"].startswith("intervention")]


def test_gamepad_that_falls_silent_lets_go_and_moves_nothing_when_it_comes_back(cell: Cell, gamepad: Any) -> None:
    cell.push(y=1.0)
    start = cell.tcp()
    cell.wait(lambda: cell.tcp()[1] > start[1] + 0.02, "motion")
    held, cell.joy = cell.joy, None
    cell.wait(lambda: "nothing on joy for" in cell.status(), "teleop_node to miss the gamepad")
    stopped = cell.await_rest()
    cell.joy = held
    cell.wait(lambda: "let go of the dead-man switch first" in cell.status(), "teleop_node to ask for that")
    np.testing.assert_allclose(cell.await_rest(), stopped, atol=1e-6)
    cell.push(is_held=False)
    cell.wait(lambda: cell.status() == "lets go", "teleop_node to see it released")
    cell.push(y=-1.0)
    cell.wait(lambda: cell.tcp()[1] < stopped[1] - 0.01, "motion again")


def test_buttons_call_the_recorder_and_without_one_the_motion_goes_on(cell: Cell, gamepad: Any) -> None:
    cell.push(y=0.5)
    cell.wait(lambda: "running" in cell.verdict(), "motion")
    cell.push(y=0.5, button=6)
    cell.wait(lambda: "start: no service episode/start" in gamepad.text, "the missing recorder to be told")
    cell.push(y=-0.5)
    here = cell.tcp()
    cell.wait(lambda: cell.tcp()[1] < here[1] - 0.01, "motion all the same")
    asked: list[str] = []

    def answer(_request: Any, response: Any) -> Any:
        asked.append("success")
        response.success, response.message = True, "episode 3 is a success"
        return response

    cell.peer.node.create_service(Trigger, "episode/success", answer)
    cell.push(is_held=False)

    def press() -> bool:
        is_down = int(time.monotonic() / 0.2) % 2 == 0
        cell.push(is_held=False, button=1 if is_down else None)
        return "success: episode 3 is a success" in gamepad.text

    cell.wait(press, "the recorder's answer")
    assert asked


def test_killed_node_leaves_the_arm_to_brake_softly(cell: Cell, gamepad: Any) -> None:
    # The last of these: DDS knows the dead node's publisher for some 15 s, and two of them hold the arm.
    start = cell.tcp()
    cell.push(y=-1.0)
    cell.wait(lambda: cell.tcp()[1] < start[1] - 0.03, "motion")
    os.kill(gamepad.pid, signal.SIGKILL)
    gamepad.wait()
    cell.wait(lambda: "the last chunk of teleop has ended" in cell.verdict(), "the chunk's end")
    cell.await_rest()


# Interventions


def told(handovers: Handovers, source: str) -> list[tuple[str, str]]:
    return [(event["event"], event["source"]) for event in handovers.select(source, 7)]


def test_intervention_lasts_from_taking_the_arm_of_a_moving_policy_until_somebody_is_selected() -> None:
    handovers = Handovers("p")
    handovers.note_motion("p")
    assert told(handovers, "teleop") == [("source", "teleop"), ("intervention_start", "p")]
    handovers.note_motion("teleop")
    assert told(handovers, "teleop") == [("source", "teleop")]
    assert told(handovers, "q") == [("source", "q"), ("intervention_end", "p")]
    assert told(handovers, "teleop") == [("source", "teleop")]  # q never moved it


@pytest.mark.parametrize("source", ["", "p"])
def test_teleoperation_before_a_policy_has_moved_the_arm_for_this_task_is_none(source) -> None:
    handovers = Handovers(source)
    handovers.note_motion(source)
    handovers.begin_anew()
    assert told(handovers, "teleop") == [("source", "teleop")]
    assert told(handovers, "p") == [("source", "p")]
