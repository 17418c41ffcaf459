"""recorder_node with real publishers over DDS: what they say is in the bag, and the services do what they say."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
rosbags = pytest.importorskip("rosbags.rosbag2")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from vla_ros.nodes import messages
from vla_ros.nodes.rivals import count_servers
from vla_ros.recording.episode import read_info

pytestmark = pytest.mark.ros

COUNT = 300


def read(folder):
    store = get_typestore(Stores.ROS2_KILTED)
    with rosbags.Reader(folder) as reader:
        found = [(c.topic, stamp, store.deserialize_cdr(data, c.msgtype)) for c, stamp, data in reader.messages()]
        qos = {connection.topic: connection.ext.offered_qos_profiles for connection in reader.connections}
        return found, qos


def test_all_that_is_said_between_start_and_success_is_in_the_bag_and_nothing_else(
    processes, make_peer, patience, tmp_path: Path
):
    folder = tmp_path / "episodes"
    peer = make_peer("stack")
    states = peer.speak(JointState, "joint_states")
    images = peer.speak(Image, "camera/base/image")
    unrelated = peer.speak(String, "unrelated")
    static = peer.speak(TFMessage, "/tf_static", is_latched=True)
    static.publish(TFMessage())
    task = peer.speak(String, "task", is_latched=True)
    task.publish(String(data="pick the red block"))
    verdict = peer.speak(DiagnosticArray, "safety/verdict")
    events = peer.hear(String, "episode/event")
    processes.start_node("recorder_node", robot="panda", rig="panda_table", folder=folder, operator="Ada")
    for publisher in (states, images, verdict):
        peer.matched(publisher)
    said = DiagnosticStatus(name="safety_node", values=[KeyValue(key="source", value="teleop")])
    verdict.publish(DiagnosticArray(status=[said]))
    states.publish(JointState(name=["before"]))
    time.sleep(0.2)

    assert peer.call(Trigger, "episode/start").success
    again = peer.call(Trigger, "episode/start")
    assert not again.success
    assert "episode 0 is being recorded" in again.message
    late = peer.speak(String, "policies/late/observed")
    image = Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(range(12)))
    for number in range(COUNT):
        states.publish(JointState(header=messages.header(number + 1), name=["joint"], position=[float(number)]))
        if number % 10 == 0:
            images.publish(image)
        unrelated.publish(String(data="not recorded"))
        time.sleep(0.002)
    peer.matched(late)
    late.publish(String(data="late"))
    task.publish(String(data="place it"))
    time.sleep(0.3)
    answer = peer.call(Trigger, "episode/success")
    assert answer.success, answer.message
    states.publish(JointState(name=["after"]))

    found, qos = read(folder / "episode_000000")
    by_topic = {topic: [message for name, _, message in found if name == topic] for topic, _, _ in found}
    assert [message.position[0] for message in by_topic["/joint_states"]] == list(range(COUNT))
    assert len(by_topic["/camera/base/image"]) == COUNT // 10
    assert bytes(by_topic["/camera/base/image"][0].data) == bytes(range(12))
    assert len(by_topic["/tf_static"]) == 1
    assert [message.data for message in by_topic["/task"]] == ["pick the red block", "place it"]
    assert [message.data for message in by_topic["/policies/late/observed"]] == ["late"]
    assert "/unrelated" not in by_topic
    assert qos["/task"][0].durability.name == "TRANSIENT_LOCAL"
    written = [json.loads(message.data) for message in by_topic["/episode/event"]]
    assert [event["event"] for event in written] == ["start", "success"]
    assert found[0][0] == "/episode/event"
    patience(lambda: len(events) == 2, "both events on the wire")
    assert [json.loads(event.data) for event in events] == written
    info = read_info(folder / "episode_000000")
    assert (info.task, info.operator, info.source, info.outcome) == ("pick the red block", "Ada", "teleop", "success")
    assert json.loads(info.to_json()) | {"outcome": "open", "ended_ns": 0} == written[0]["episode"]
    assert info.rig.name == "panda_table"
    assert info.robot_config["tcp_frame"]


def test_a_recorder_that_is_interrupted_keeps_its_episode_and_two_at_once_get_one(
    processes, make_peer, patience, tmp_path: Path
):
    folder = tmp_path / "episodes"
    peer = make_peer("stack")
    states = peer.speak(JointState, "joint_states")
    events = peer.speak(String, "episode/event", is_latched=True)
    events.publish(String(data='{"event": "task", "task": "given to the policy by its launch file"}'))
    taken = {"event": "intervention_start", "source": "some_policy", "stamp_ns": 5}
    events.publish(String(data=json.dumps(taken)))
    common = {"robot": "panda", "rig": "panda_table", "folder": folder, "storage": "sqlite3"}
    first = processes.start_node("recorder_node", **common)
    peer.matched(states)
    # As whatever comes late, and as what its publisher keeps.
    patience(lambda: events.get_subscription_count() == 2, "both subscriptions to events")
    time.sleep(0.2)
    assert peer.call(Trigger, "episode/start").success
    second = processes.start(
        *first.args[:4], *first.args[4:], "-r", "__ns:=/other"  # The same folder, another stack.
    )  # fmt: skip
    refused = peer.call(Trigger, "/other/episode/start")
    assert not refused.success
    assert "recording an episode" in refused.message
    states.publish(JointState(name=["joint"], position=[1.0]))
    time.sleep(0.2)
    assert first.end() == 0, first.text
    found, _ = read(folder / "episode_000000")
    assert [message.position[0] for topic, _, message in found if topic == "/joint_states"] == [1.0]
    # What began before the episode and goes on is told in it.
    said = [json.loads(message.data) for topic, _, message in found if topic == "/episode/event"]
    assert taken in said
    assert said[0]["event"] == "start"
    info = read_info(folder / "episode_000000")
    assert (info.outcome, info.task) == ("unlabelled", "given to the policy by its launch file")
    assert peer.call(Trigger, "/other/episode/start").success
    assert peer.call(Trigger, "/other/episode/discard").success
    assert [path.name for path in sorted(folder.glob("episode*"))] == ["episode_000000"]
    assert second.end() == 0, second.text


def test_a_recorder_says_that_another_one_hears_the_same_services(processes, make_peer, patience, tmp_path: Path):
    peer = make_peer("stack")
    common = {"robot": "panda", "rig": "panda_table", "storage": "sqlite3"}
    both = [processes.start_node("recorder_node", **common, folder=tmp_path / name) for name in ("a", "b")]

    def is_warned() -> bool:
        # Until each has heard of the other, too. Which of them answers isn't settled.
        peer.call(Trigger, "episode/start")
        peer.call(Trigger, "episode/discard")
        return any("another recorder answers episode/start here, too" in each.text for each in both)

    patience(lambda: peer.node.get_node_names().count("recorder_node") == 2, "both recorders")
    # A fresh pair of services: each has to be heard of.
    patience(lambda: count_servers(peer.node, "/episode/start") == 2, "their services")
    patience(is_warned, "the warning")
