"""sim_node as a process: it talks like an arm driver and its cameras, and a reset brings a seed's scene back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")

from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, Float64MultiArray
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from vla_ros.nodes import image_messages, messages
from vla_ros.robots.config import load_robot

pytestmark = [pytest.mark.ros, pytest.mark.sim]

ROBOT = load_robot("panda")
HOME = [joint.home_rad for joint in ROBOT.joints]
TICK_NS = 4_000_000
CAMERAS = ("base", "wrist")


class Sim:
    """A listener to a running sim_node."""

    def __init__(self, peer: Any, process: Any, wait: Callable[..., Any]) -> None:
        self.peer, self.process, self.wait = peer, process, wait
        self.states: list[JointState] = peer.hear(JointState, "joint_states")
        self.truth: list[TFMessage] = peer.hear(TFMessage, "sim/ground_truth")
        self.gripper: list[JointState] = peer.hear(JointState, "gripper/state")
        self.images = {name: peer.hear(Image, f"camera/{name}/image") for name in CAMERAS}
        self.infos = {name: peer.hear(CameraInfo, f"camera/{name}/camera_info") for name in CAMERAS}
        self.command = peer.speak(Float64MultiArray, ROBOT.command.topic)
        self.gripper_command = peer.speak(Float64, "gripper/command")

    def positions(self) -> np.ndarray:
        return np.array(self.states[-1].position)

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """Resets to a seed and returns the first ground truth that follows."""
        assert self.peer.set_parameter("sim_node", "seed", seed).successful
        answer = self.peer.call(Trigger, "sim/reset")
        assert answer.success
        assert answer.message == f"reset to seed {seed}"
        heard = len(self.truth)
        # One may have been under way.
        self.wait(lambda: len(self.truth) >= heard + 2, "ground truth")
        return {
            edge.child_frame_id: messages.from_transform(edge.transform) for edge in self.truth[heard + 1].transforms
        }


@pytest.fixture(scope="module")
def running_sim(module_processes, make_module_peer, patience) -> Iterator[Sim]:
    module_processes.close()
    process = module_processes.start_node("sim_node", robot="panda", rig="panda_table", seed=3)
    sim = Sim(make_module_peer("listener"), process, patience)
    patience(lambda: all(sim.images.values()) or process.poll() is not None, "images")
    assert process.poll() is None, process.text
    yield sim
    assert process.end() == 0, process.text
    assert "Traceback" not in process.text


@pytest.fixture
def sim(running_sim: Sim) -> Sim:
    assert running_sim.process.poll() is None, running_sim.process.text
    return running_sim


def stamps_ns(heard: list[Any]) -> np.ndarray:
    return np.array([messages.to_ns(message.header.stamp) for message in list(heard)])


def best_rate_hz(heard: list[Any], window: int) -> float:
    """Over the densest stretch of so many messages, by their stamps: a busy machine leaves some out."""
    stamps = stamps_ns(heard)
    return 1e9 * window / float(np.min(stamps[window:] - stamps[:-window])) if len(stamps) > window else 0.0


def test_topics_have_the_names_and_types_of_the_design(sim: Sim, patience) -> None:
    node = sim.peer.node
    patience(lambda: "sim_node" in node.get_node_names(), "sim_node in the graph")
    patience(lambda: node.count_publishers("/sim/ground_truth"), "its topics")
    published = dict(node.get_publisher_names_and_types_by_node("sim_node", "/"))
    expected = {
        "/joint_states": "sensor_msgs/msg/JointState",
        "/gripper/state": "sensor_msgs/msg/JointState",
        "/sim/ground_truth": "tf2_msgs/msg/TFMessage",
        **{f"/camera/{name}/image": "sensor_msgs/msg/Image" for name in CAMERAS},
        **{f"/camera/{name}/camera_info": "sensor_msgs/msg/CameraInfo" for name in CAMERAS},
    }
    assert {topic: types[0] for topic, types in published.items() if topic in expected} == expected
    heard = dict(node.get_subscriber_names_and_types_by_node("sim_node", "/"))
    assert heard[f"/{ROBOT.command.topic}"] == ["std_msgs/msg/Float64MultiArray"]
    assert heard["/gripper/command"] == ["std_msgs/msg/Float64"]
    assert dict(node.get_service_names_and_types_by_node("sim_node", "/"))["/sim/reset"] == ["std_srvs/srv/Trigger"]


def test_joint_states_come_at_250_hz_on_an_exact_grid(sim: Sim) -> None:
    sim.states.clear()
    sim.wait(lambda: best_rate_hz(sim.states, 100) >= 200.0, "a stretch of joint states at 200 Hz or more")
    assert best_rate_hz(sim.states, 100) <= 250.0 * (1 + 1e-9)
    steps_ns = np.diff(stamps_ns(sim.states))
    assert steps_ns.min() > 0
    np.testing.assert_array_equal(steps_ns % TICK_NS, 0)
    assert tuple(sim.states[-1].name) == ROBOT.joint_names
    assert len(sim.states[-1].velocity) == len(HOME)


def test_images_come_at_15_hz_or_more_and_their_stamps_increase(sim: Sim) -> None:
    for name in CAMERAS:
        images = sim.images[name]
        images.clear()
        sim.wait(lambda heard=images: best_rate_hz(heard, 10) >= 15.0, f"images of {name} at 15 Hz or more")
        assert np.diff(stamps_ns(images)).min() > 0
        assert best_rate_hz(images, 10) < 25.0


def test_camera_info_has_the_size_and_stamp_of_its_image_and_the_rigs_lens(sim: Sim) -> None:
    # By hand: half of 240 rows over the tangent of half the field of view of the rig.
    focal_px = {"base": 120.0 / np.tan(0.435), "wrist": 120.0 / np.tan(0.523599)}
    for name in CAMERAS:
        sim.images[name].clear()
        sim.infos[name].clear()
        sim.wait(lambda name=name: len(sim.images[name]) > 2 and len(sim.infos[name]) > 2, f"images of {name}")
        image, info = sim.images[name][-1], sim.infos[name][-1]
        assert (image.width, image.height) == (info.width, info.height) == (320, 240)
        assert image.header.frame_id == info.header.frame_id == f"camera_{name}_optical_frame"
        assert set(stamps_ns(sim.images[name])[1:-1]) <= set(stamps_ns(sim.infos[name]))
        expected = [focal_px[name], 0.0, 159.5, 0.0, focal_px[name], 119.5, 0.0, 0.0, 1.0]
        np.testing.assert_allclose(info.k, expected, rtol=1e-6)


def test_image_shows_the_coloured_blocks(sim: Sim) -> None:
    image = image_messages.from_image(sim.images["base"][-1]).astype(int)
    for channel in range(3):
        others = np.delete(image, channel, axis=2).max(axis=2)
        # Half as bright again as the other two: tens of pixels for a block of 4 cm in 1.4 m.
        assert np.count_nonzero(image[:, :, channel] > 1.5 * others + 40) > 20


def test_reset_brings_the_scene_of_a_seed_back(sim: Sim) -> None:
    first, other, again = (sim.reset(seed) for seed in (7, 8, 7))
    blocks = {"block_red", "block_green", "block_blue"}
    assert set(first) == blocks | {"tcp", "camera/base", "camera/wrist"}
    for name, T in first.items():
        # Blocks settle by some micrometres on the table.
        np.testing.assert_allclose(again[name], T, atol=1e-4)
    moved = [np.linalg.norm(other[name][:2, 3] - first[name][:2, 3]) for name in blocks]
    assert max(moved) > 0.02


def test_ground_truth_of_the_tcp_is_the_forward_kinematics_of_the_joints(sim: Sim) -> None:
    from vla_ros.robots.model import RobotModel

    T = sim.reset(1)["tcp"]
    expected = RobotModel.from_config(ROBOT).forward_kinematics(np.array(HOME))
    # The simulated servo sags by less than a millimetre.
    np.testing.assert_allclose(T, expected, atol=2e-3)


def test_arm_and_gripper_go_where_they_are_commanded(sim: Sim) -> None:
    sim.reset(0)
    sim.peer.matched(sim.command).publish(Float64MultiArray(data=[HOME[0] + 0.05, *HOME[1:]]))
    sim.wait(lambda: abs(sim.positions()[0] - HOME[0] - 0.05) < 0.005, "the first joint")
    sim.peer.matched(sim.gripper_command).publish(Float64(data=0.25))
    sim.wait(lambda: abs(sim.gripper[-1].position[0] - 0.25) < 0.02, "the gripper")
    sim.reset(0)
    sim.wait(lambda: abs(sim.positions()[0] - HOME[0]) < 0.002, "home")
    assert sim.gripper[-1].position[0] > 0.9


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ([0.5, 0.5, 0.5], "3"),
        ([0.5, float("nan"), 0.5, -1.5, 0.5, 1.5, 0.5], "panda_joint2"),
    ],
)
def test_command_that_does_not_fit_is_refused_with_a_line_and_nothing_moves(sim: Sim, command, text) -> None:
    sim.reset(0)
    errors = sim.process.text.count("[ERROR]")
    sim.peer.matched(sim.command)

    def is_refused() -> bool:
        # Again and again, since the log is throttled.
        sim.command.publish(Float64MultiArray(data=command))
        return sim.process.text.count("[ERROR]") > errors

    sim.wait(is_refused, "a line in the log")
    line = next(line for line in reversed(sim.process.text.splitlines()) if "[ERROR]" in line)
    assert text in line
    heard = len(sim.states)
    sim.wait(lambda: len(sim.states) > heard + 50, "joint states")
    # The servo's own sag at rest.
    np.testing.assert_allclose(sim.positions(), HOME, atol=5e-3)


def test_seed_that_is_none_is_refused_and_the_simulation_goes_on(sim: Sim) -> None:
    answer = sim.peer.set_parameter("sim_node", "seed", -1)
    assert not answer.successful
    assert "seed" in answer.reason
    assert "-1" in answer.reason
    assert not sim.peer.set_parameter("sim_node", "seed", "seven").successful
    heard = len(sim.states)
    sim.wait(lambda: len(sim.states) > heard + 20, "joint states")


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"robot": "panda", "rig": "panda_table", "seed": "-4"}, "value: -4"),
        ({"robot": "panda", "rig": "panda_table", "seed": "seven"}, "'seed' to 'seven'"),
        ({"robot": "panda", "rig": "panda_table", "cameras": "perhaps"}, "'cameras' to 'perhaps'"),
        ({"robot": "panda"}, "parameter 'rig' is not set"),
    ],
)
def test_unusable_parameter_ends_the_node_with_code_2_and_a_line_that_names_it(processes, parameters, text) -> None:
    process = processes.start_node("sim_node", **parameters)
    assert process.wait(60.0) == 2
    assert text in process.text.splitlines()[-1]
    assert "Traceback" not in process.text


def test_without_cameras_the_arm_runs_where_nothing_can_draw(processes, make_peer, patience) -> None:
    words = ("sim_node", "--ros-args", "-p", "robot:=ur5e", "-p", "rig:=ur5e_table", "-p", "cameras:=false")
    process = processes.start(sys.executable, "-m", "vla_ros.nodes", *words, MUJOCO_GL="disable")
    peer = make_peer("listener")
    states = peer.hear(JointState, "joint_states")
    patience(lambda: len(states) > 20 or process.poll() is not None, "joint states")
    assert process.poll() is None, process.text
    assert len(states[0].position) == 6
    assert process.end() == 0


def test_varied_scene_holds_what_is_needed_and_truth_tells_all_of_it(processes, make_peer, patience) -> None:
    words = {"robot": "panda", "rig": "panda_table", "setting": "varied", "needed": "put the red cylinder in the bowl"}
    process = processes.start_node("sim_node", **words)
    peer = make_peer("listener")
    truth = peer.hear(TFMessage, "sim/ground_truth")

    def names() -> set[str]:
        return {edge.child_frame_id for edge in truth[-1].transforms} if truth else set()

    patience(lambda: bool(truth) or process.poll() is not None, "ground truth")
    assert process.poll() is None, process.text
    assert {"cylinder_red", "bowl", "tcp", "camera/base", "camera/wrist"} <= names()
    assert peer.set_parameter("sim_node", "needed", "stack the green block on the purple cylinder").successful
    assert peer.call(Trigger, "sim/reset").success
    patience(lambda: {"block_green", "cylinder_purple"} <= names(), "what the next task needs")
    assert peer.set_parameter("sim_node", "needed", "juggle").successful
    answer = peer.call(Trigger, "sim/reset")
    assert not answer.success
    assert "juggle" in answer.message
    assert process.end() == 0
