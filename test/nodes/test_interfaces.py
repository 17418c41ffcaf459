"""What interfaces/ builds is, on the wire, what a driver of every ROS 2 distribution speaks."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

import pytest

os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
rclpy = pytest.importorskip("rclpy")

from geometry_msgs.msg import TransformStamped
from rclpy.executors import SingleThreadedExecutor
from tf2_msgs.msg import TFMessage

pytestmark = pytest.mark.ros

FOLDER = Path(__file__).resolve().parents[2] / "interfaces"
PARTS = {"msg": ("",), "srv": ("_Request", "_Response"), "action": ("_Goal", "_Result", "_Feedback")}
# From the original definitions by another implementation; the file says which.
HASHES_FILE = Path(__file__).resolve().parents[1] / "data" / "type_hashes.txt"
TYPE_HASHES = dict(line.split() for line in HASHES_FILE.read_text().splitlines() if not line.startswith("#"))

TOPIC = f"transforms_{os.getpid()}"


def definitions() -> list[str]:
    """All that interfaces/ defines, as `package/kind/Name`, what is sent of services and actions part by part."""
    return sorted(
        path.relative_to(FOLDER).with_suffix("").as_posix() + part
        for kind, parts in PARTS.items()
        for path in FOLDER.glob(f"*/{kind}/*.{kind}")
        for part in parts
    )


@pytest.fixture
def nodes():
    """A sender and a receiver, as two DDS participants."""
    contexts = [rclpy.Context(), rclpy.Context()]
    for context in contexts:
        rclpy.init(context=context)
    pair = [
        rclpy.create_node(name, context=context)
        for name, context in zip(("tf_sender", "tf_receiver"), contexts, strict=True)
    ]
    yield pair
    for node, context in zip(pair, contexts, strict=True):
        node.destroy_node()
        context.shutdown()


def transform(parent: str, child: str, x: float) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp.sec, message.header.stamp.nanosec = 12, 345
    message.header.frame_id, message.child_frame_id = parent, child
    message.transform.translation.x, message.transform.rotation.w = x, 1.0
    return message


def spin_until(node, is_done, limit_s: float = 10.0) -> bool:
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    deadline_s = time.monotonic() + limit_s
    while not is_done() and time.monotonic() < deadline_s:
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    return is_done()


def test_message_arrives_as_it_was_sent(nodes):
    sender, receiver = nodes
    sent = TFMessage(transforms=[transform("base", "tcp", 0.25), transform("tcp", "camera/wrist", -1e-9)])
    received = []
    receiver.create_subscription(TFMessage, TOPIC, received.append, 10)
    publisher = sender.create_publisher(TFMessage, TOPIC, 10)
    assert spin_until(receiver, lambda: publisher.get_subscription_count() > 0)
    publisher.publish(sent)
    assert spin_until(receiver, lambda: bool(received))
    assert received == [sent]


def test_every_definition_has_a_known_type_hash():
    assert set(definitions()) == set(TYPE_HASHES)


@pytest.mark.parametrize("name", definitions())
def test_type_hash_is_the_original_one(name):
    """As the type support says it of itself, in the description that is installed beside it."""
    import json

    from ament_index_python.packages import get_package_share_directory

    package, kind, word = name.split("/")
    word = word.split("_")[0]
    assert getattr(importlib.import_module(f"{package}.{kind}"), word)
    path = Path(get_package_share_directory(package), kind, f"{word}.json")
    if not path.is_file():
        pytest.skip("this distribution has no type hashes")
    hashes = {item["type_name"]: item["hash_string"] for item in json.loads(path.read_text())["type_hashes"]}
    assert hashes[name] == f"RIHS01_{TYPE_HASHES[name]}"


def test_type_hash_is_the_one_on_the_wire(nodes):
    sender, receiver = nodes
    publisher = sender.create_publisher(TFMessage, TOPIC, 10)
    assert spin_until(receiver, lambda: bool(receiver.get_publishers_info_by_topic(publisher.topic_name)))
    (info,) = receiver.get_publishers_info_by_topic(publisher.topic_name)
    if not hasattr(info, "topic_type_hash"):
        pytest.skip("this distribution has no type hashes")
    assert str(info.topic_type_hash) == f"RIHS01_{TYPE_HASHES['tf2_msgs/msg/TFMessage']}"


def test_service_is_answered_over_dds(make_peer):
    from controller_manager_msgs.msg import ControllerState
    from controller_manager_msgs.srv import SwitchController

    asked = []

    def answer(request, response):
        asked.append(request)
        response.ok, response.message = True, "done"
        return response

    server, client = make_peer("server"), make_peer("client")
    server.node.create_service(SwitchController, "switch", answer)
    request = SwitchController.Request(activate_controllers=["a", "b"], strictness=SwitchController.Request.STRICT)
    response = client.call(SwitchController, "switch", request)
    assert (response.ok, response.message) == (True, "done")
    assert asked == [request]
    assert ControllerState().state == ""


def test_action_goes_its_way_over_dds(make_peer, patience):
    from control_msgs.action import GripperCommand
    from rclpy.action import ActionClient, ActionServer

    def execute(handle):
        handle.publish_feedback(GripperCommand.Feedback(position=0.5))
        handle.succeed()
        return GripperCommand.Result(position=handle.request.command.position, reached_goal=True)

    server, client = make_peer("server"), make_peer("client")
    ActionServer(server.node, GripperCommand, "grip", execute)
    action = ActionClient(client.node, GripperCommand, "grip")
    patience(action.server_is_ready, "the action")
    goal = GripperCommand.Goal()
    goal.command.position = 0.25
    felt = []
    accepted = action.send_goal_async(goal, feedback_callback=lambda message: felt.append(message.feedback.position))
    patience(accepted.done, "acceptance")
    ended = accepted.result().get_result_async()
    patience(ended.done, "the result")
    assert ended.result().result.position == 0.25
    assert ended.result().result.reached_goal
    patience(lambda: felt == [0.5], "feedback")
