"""Two arms on one machine, each launched into a namespace: no topic, frame, parameter or stop of one is the other's."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")

from rcl_interfaces.srv import GetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from vla_ros.robots.config import load_robot

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow, pytest.mark.lengthy]

# What all arms of a machine share, by its own names: /diagnostics has the nodes' full names in it.
SHARED = {"/diagnostics", "/parameter_events", "/rosout", "/tf", "/tf_static"}
ARMS = {"left": "ur5e", "right": "panda"}


@pytest.fixture(scope="module")
def cells(module_domain: int, module_processes: Any) -> dict[str, Any]:
    """The left one behind a prefix, in the common TF; the right one with a TF of its own."""
    module_processes.close()
    words = {"left": ("prefix:=left_",), "right": ("own_tf:=true",)}
    return {
        name: module_processes.start_command(
            "launch", "bringup", f"robot:={robot}", f"namespace:={name}", "cameras:=false", *words[name]
        )
        for name, robot in ARMS.items()
    }


@pytest.fixture(scope="module")
def peer(make_module_peer: Any, cells: dict[str, Any], patience: Any) -> Any:
    """A node beside them, when both arms are there."""
    peer = make_module_peer("observer")
    for name in ARMS:
        heard = peer.hear(JointState, f"/{name}/joint_command")
        patience(lambda heard=heard: heard, f"commands of {name}\n{cells[name].text}", 60.0)
    return peer


def topics_by_nodes(peer: Any) -> dict[str, set[str]]:
    """Topics that the nodes of each namespace publish or hear."""
    found: dict[str, set[str]] = {}
    for node, namespace in peer.node.get_node_names_and_namespaces():
        ends = [
            *peer.node.get_publisher_names_and_types_by_node(node, namespace),
            *peer.node.get_subscriber_names_and_types_by_node(node, namespace),
        ]
        found.setdefault(namespace, set()).update(name for name, _ in ends)
    return found


def test_no_topic_of_one_arm_is_the_others(peer) -> None:
    found = topics_by_nodes(peer)
    assert set(found) == {"/left", "/right", "/"}
    for name in ARMS:
        outside = {topic for topic in found[f"/{name}"] if not topic.startswith(f"/{name}/")}
        assert outside <= SHARED
        assert {f"/{name}/{topic}" for topic in ("target", "joint_states", "safety/verdict", "task")} < found[
            f"/{name}"
        ]
    assert "/tf" in found["/left"]
    assert not {"/tf", "/tf_static"} & found["/right"]
    assert {"/right/tf", "/right/tf_static"} < found["/right"]


@pytest.mark.parametrize(("name", "place", "prefix"), [("left", "", "left_"), ("right", "/right", "")])
def test_no_frame_of_one_arm_is_the_others(name, place, prefix, peer, patience) -> None:
    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    heard: list[Any] = []
    peer.node.create_subscription(TFMessage, f"{place}/tf_static", heard.append, latched)
    peer.node.create_subscription(TFMessage, f"{place}/tf", heard.append, 100)
    wanted = {load_robot(ARMS[name], prefix).tcp_frame, f"{prefix}camera_base_optical_frame"}

    def frames() -> set[str]:
        edges = [edge for message in list(heard) for edge in message.transforms]
        return {frame for edge in edges for frame in (edge.child_frame_id, edge.header.frame_id)}

    patience(lambda: wanted < frames(), f"the frames of {name}")
    assert {frame.startswith("left_") for frame in frames()} == {name == "left"}


def test_joints_are_named_as_their_arms(peer, patience) -> None:
    for name, prefix in (("left", "left_"), ("right", "")):
        heard = peer.hear(JointState, f"/{name}/joint_command")
        patience(lambda heard=heard: heard, f"commands of {name}")
        assert tuple(heard[0].name) == load_robot(ARMS[name], prefix).joint_names


def test_parameter_set_on_one_arm_is_the_others_as_before(peer) -> None:
    assert peer.set_parameter("/left/safety_node", "source", "teleop").successful
    request = GetParameters.Request(names=["source"])
    values = [peer.call(GetParameters, f"/{name}/safety_node/get_parameters", request).values[0] for name in ARMS]
    assert [value.string_value for value in values] == ["teleop", "scripted_visual"]


def test_stop_of_one_arm_leaves_the_other_as_it_is_also_after_a_restart(peer, patience, cells, ros_domain) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    from vla_ros.nodes.runtime import state_folder

    assert peer.call(Trigger, "/left/safety/stop").success
    verdicts = {name: peer.hear(DiagnosticArray, f"/{name}/safety/verdict") for name in ARMS}
    patience(lambda: all(len(heard) > 20 for heard in verdicts.values()), "verdicts of both")
    last = {name: heard[-1].status[0].message for name, heard in verdicts.items()}
    assert last["left"] == "stopped"
    assert last["right"] != "stopped"
    assert [path.name for path in state_folder().iterdir() if path.name.startswith("stop")] == ["stop-left"]


def test_both_end_cleanly(peer, cells) -> None:
    assert [cell.end() for cell in cells.values()] == [0, 0]
    assert not [cell.text for cell in cells.values() if "Traceback" in cell.text]
