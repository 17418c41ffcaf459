"""What policy_node was shown and what a recording gives for the stamps that it named are the same to the bit."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")

import bags
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, String
from tf2_msgs.msg import TFMessage

from vla_ros.config import config_names, plain
from vla_ros.contract import Contract, action_width, load_contract, save_contract
from vla_ros.geometry.rotations import rpy_to_matrix
from vla_ros.geometry.se3 import make_pose
from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.policy_node import PolicyNode
from vla_ros.nodes.runtime import LATCHED, RELIABLE, now_ns
from vla_ros.observation.observed import observed_from_json
from vla_ros.policies import registry
from vla_ros.policies.base import InferenceContext
from vla_ros.recording.episode import EpisodeInfo, write_info
from vla_ros.recording.observations import RecordedObservations
from vla_ros.recording.reading import read_episode
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import ActionChunk, Observation

pytestmark = pytest.mark.ros

ROBOT = load_robot("panda")
KEPT = 4
KINDS = {
    "/joint_states": JointState,
    "/gripper/state": JointState,
    "/gripper/command": Float64,
    "/camera/base/image": Image,
    "/camera/wrist/image": Image,
    "/camera/base/camera_info": CameraInfo,
    "/tf_static": TFMessage,
    "/task": String,
}


class Witness:
    """A policy that keeps what it is shown."""

    seen: dict[str, list[Observation]]

    def __init__(self, contract: Contract, parameters: dict[str, Any]) -> None:
        self.contract = contract
        self._seen = Witness.seen.setdefault(contract.name, [])

    def reset(self, task: str, seed: int) -> None:
        return

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        self._seen.append(observation)
        actions = np.zeros((4, action_width(self.contract.action, 7)))
        if self.contract.action.has_gripper:
            actions[:, -1] = 0.5
        return ActionChunk(actions)


class World:
    """Cameras, arm and gripper that never stand still, and the bag of all that they say."""

    def __init__(self, node: Any, writer: Writer) -> None:
        self._node, self._writer = node, writer
        self._speakers = {
            topic: node.create_publisher(kind, topic, LATCHED if topic == "/tf_static" else RELIABLE)
            for topic, kind in KINDS.items()
        }
        self._connections: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._model, self._rng = RobotModel.from_config(ROBOT), np.random.default_rng(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def listen(self, topics: dict[str, type]) -> None:
        for topic, kind in topics.items():
            callback = self._keeper(topic, kind)
            profile = LATCHED if topic == "/tf_static" else 200
            self._node.create_subscription(kind, topic, callback, profile, raw=True)

    def _keeper(self, topic: str, kind: type) -> Any:
        name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        self._connections[topic] = self._writer.add_connection(topic, name, typestore=bags.TYPES)

        def keep(data: bytes) -> None:
            with self._lock:
                self._writer.write(self._connections[topic], now_ns(self._node), data)

        return keep

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _say(self, topic: str, message: Any) -> None:
        self._speakers[topic].publish(message)

    def _run(self) -> None:
        T = make_pose(np.array([0.01, 0.02, 0.03]), rpy_to_matrix(np.array([0.1, 0.2, 0.3])))
        mounts = [camera.mount for camera in bags.tiny_rig().cameras.values()]
        edges = [messages.to_transform_stamped(T, mount.parent, mount.frame, 0) for mount in mounts]
        self._say("/tf_static", TFMessage(transforms=edges))
        self._say("/task", String(data="look"))
        began_s, tick = time.monotonic(), 0
        while not self._is_over.is_set():
            stamp_ns = now_ns(self._node)
            q = self._model.home + 0.1 * np.sin(0.5 * (time.monotonic() - began_s) + np.arange(7))
            self._say("/joint_states", messages.to_joint_state(stamp_ns, ROBOT.joint_names, q, 0.1 * q))
            if tick % 3 == 0:
                opening = np.array([float(self._rng.uniform())])
                self._say("/gripper/state", messages.to_joint_state(stamp_ns, ["gripper"], opening))
            if tick % 20 == 0:
                self._say("/gripper/command", Float64(data=float(self._rng.uniform())))
            for camera, phase in (("base", 0), ("wrist", 1)):
                if tick % 5 == phase:
                    pixels = self._rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
                    exposed_ns = stamp_ns - 3_000_000
                    self._say(f"/camera/{camera}/image", image_messages.to_image(pixels, exposed_ns, camera))
            tick += 1
            self._is_over.wait(0.01)


@pytest.fixture
def parts(ros_domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    module = types.ModuleType("witnesses")
    module.Witness = Witness  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "witnesses", module)
    monkeypatch.setitem(registry.BUILT_IN, "witness", "witnesses:Witness")
    Witness.seen = {}
    contracts = {name: load_contract(name) for name in config_names("contracts")}
    spec = contracts["tool_delta_visual"].observation
    state = (*spec.state[:1], dataclasses.replace(spec.state[1], kind="gripper_command"))
    past = dataclasses.replace(spec, history_steps=3, history_spacing_s=0.1, state=state)
    contracts["with_history"] = dataclasses.replace(
        contracts["tool_delta_visual"], name="with_history", observation=past
    )
    words = []
    for name, contract in contracts.items():
        save_contract(contract, tmp_path / f"contract_{name}.yaml")
        path = tmp_path / f"see_{name}.yaml"
        path.write_text(f"name: see_{name}\nkind: witness\ncontract: {tmp_path}/contract_{name}.yaml\nrate_hz: 20.0\n")
        words.append(str(path))
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(plain(dataclasses.asdict(bags.tiny_rig()))))
    yield tmp_path, words
    rclpy.try_shutdown()


def test_recorded_observations_equal_those_of_policy_node_to_the_bit(parts, patience, make_peer) -> None:
    folder, words = parts
    given = {"robot": "panda", "rig": folder / "rig.yaml", "policy": words[0], "resident": f"'{','.join(words)}'"}
    given["task"] = "look"
    rclpy.init(args=["--ros-args", *[word for key, value in given.items() for word in ("-p", f"{key}:={value}")]])
    node, executor = PolicyNode(), SingleThreadedExecutor()
    executor.add_node(node)
    peer = make_peer("world")
    bag = folder / "episode"
    with Writer(bag, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        world = World(peer.node, writer)
        policies = [Path(word).stem for word in words]
        world.listen({**KINDS, **{f"/policies/{name}/observed": String for name in policies}})
        world.start()
        node.start()
        for word in words:
            assert node.set_parameters([Parameter("policy", value=word)])[0].successful
            name = load_contract(str(folder / f"contract_{Path(word).stem.removeprefix('see_')}.yaml")).name

            def has_seen(name: str = name) -> bool:
                executor.spin_once(timeout_sec=0.005)
                node.poll()
                return len(Witness.seen.get(name, ())) >= KEPT

            patience(has_seen, name)
        node.inference.set_active(False)
        time.sleep(0.3)  # What was said is on its way to the bag.
        world.stop()
        node.close()
        peer.close()
    node.destroy_node()
    write_info(EpisodeInfo(0, "look", "panda", bags.tiny_rig(), 0), bag)
    episode = read_episode(bag)
    for name, observations in Witness.seen.items():
        told = [each for each in episode.observed if each["policy"] == f"see_{name}"]
        assert len(told) >= KEPT - 1, name  # The last answer may not be out yet when the next policy's turn comes.
        by_stamp = {observation.stamp_ns: observation for observation in observations}
        rebuilt = RecordedObservations(episode, load_contract(str(folder / f"contract_{name}.yaml")))
        made = list(rebuilt.of([observed_from_json(each) for each in told]))
        assert len(made) == len(told)
        for observation in made:
            _same(by_stamp[observation.stamp_ns], observation)
            assert len(observation.history) == (2 if name == "with_history" else 0)
        if name == "tool_delta_visual":
            assert all(observation.images["base"].T_base_cam is not None for observation in made)
    for observation in Witness.seen["with_history"]:
        assert len({each.stamp_ns for each in (*observation.history, observation)}) > 1


def _same(shown: Observation, made: Observation) -> None:
    assert json.dumps(dataclasses.asdict(shown.made_of)) == json.dumps(dataclasses.asdict(made.made_of))
    assert shown.state.tobytes() == made.state.tobytes()
    assert shown.T_base_tcp.tobytes() == made.T_base_tcp.tobytes()
    assert shown.gripper_opening == made.gripper_opening
    assert shown.images.keys() == made.images.keys()
    for name, frame in shown.images.items():
        assert frame.stamp_ns == made.images[name].stamp_ns
        np.testing.assert_array_equal(frame.image, made.images[name].image)
        if made.images[name].T_base_cam is not None:  # Other contracts don't ask for it, and some frames are black.
            # The node interpolates between the states that it had, the recording has more of them: 0.1 rad/s.
            np.testing.assert_allclose(frame.T_base_cam, made.images[name].T_base_cam, atol=2e-3)
            np.testing.assert_array_equal(frame.camera.K, made.images[name].camera.K)
    for before, after in zip(shown.history, made.history, strict=True):
        _same(before, after)
