"""policy_node: observations into the policy, its chunks out; a lifecycle node that publishes only while active."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from math import isnan
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle import Node as LifecycleNode
from std_msgs.msg import Float64, String
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

from vla_ros.actions.decode import decode_joint_chunk, decode_tool_chunk, place_in_time
from vla_ros.contract import find_mismatches, load_rig
from vla_ros.errors import ContractError, InstructionError, SensorError, VlaRosError
from vla_ros.nodes import chunk_messages, messages
from vla_ros.nodes.camera_intake import CameraIntake
from vla_ros.nodes.runtime import (
    LATCHED,
    RELIABLE,
    SENSOR,
    Percentiles,
    autostart,
    destroy,
    entities,
    logged_transition,
    newest_only,
    now_ns,
    parameter,
    required_parameter,
    run,
)
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.observation.synchroniser import ObservationBuilder
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.registry import load_policy_config, make_policy
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import ActionChunk, Observation

_STATE_TOLERANCE_NS = 50_000_000


class PolicyNode(LifecycleNode):
    """Feeds a policy the newest aligned observation, off the executor, and publishes what it answers."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        self.robot = load_robot(required_parameter(self, "robot", "name of the robot, or its YAML file"))
        self.rig = load_rig(required_parameter(self, "rig", "name of the rig, or its YAML file"))
        self.policy_config = load_policy_config(
            required_parameter(self, "policy", "name of the policy, or its YAML file")
        )
        self._task = str(
            parameter(self, "task", "", "instruction in force from the start; empty: wait for `task`")
        ).strip()
        self._autostart = bool(parameter(self, "autostart", True, "activate without being asked"))
        self._started_ns = now_ns(self)
        self._wake = threading.Condition()
        self._inferring = threading.Lock()
        self._built: set[Any] = set()
        self._is_active = False
        self._is_over = False
        self._task_number = 1
        self._status, self._level = "not active", DiagnosticStatus.OK
        self._times_s = {name: Percentiles() for name in ("observe", "infer", "decode", "age")}
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._events = self.create_publisher(String, "episode/event", LATCHED)
        self.create_timer(1.0, self._publish_diagnostics)
        self._thread = threading.Thread(target=self._infer_loop, name="inference", daemon=True)

    def start(self) -> None:
        """Configures and activates where `autostart` says so.

        Raises:
            VlaRosError: what configuring refuses, under autostart.
        """
        if self._autostart:
            self._configure()
            autostart(self)

    # Lifecycle and callbacks: executor's thread.

    def _configure(self) -> None:
        if hasattr(self, "policy"):
            return
        self.policy, self.contract = make_policy(self.policy_config)
        mismatches = find_mismatches(self.rig, self.contract)
        if mismatches:
            raise ContractError("; ".join(mismatches))
        if self._task:
            self.policy.reset(self._task, self.policy_config.seed)

    @logged_transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the policy, checks its contract against the rig, and makes the topics."""
        self._configure()
        before = entities(self)
        name = self.policy_config.name
        self._model = RobotModel.from_config(self.robot)
        self._builder = ObservationBuilder(self.contract, self._model.forward_kinematics)
        self._states = StateIntake(self, self.robot, newest_only(SENSOR), self._builder.add_state).states
        self._tool_chunks = self.create_publisher(MultiDOFJointTrajectory, f"policies/{name}/action_chunk", RELIABLE)
        self._joint_chunks = self.create_publisher(JointTrajectory, f"policies/{name}/joint_chunk", RELIABLE)
        self.create_subscription(String, "task", self._on_task, RELIABLE)
        wanted = {spec.camera for spec in self.contract.observation.images.values()} & set(self.rig.cameras)
        has_history = self.contract.observation.history_steps > 1
        self._cameras = CameraIntake(self, self.rig, wanted, self._model, self._states, has_history)
        if any(item.kind == "gripper_command" for item in self.contract.observation.state):
            self.create_subscription(Float64, "gripper/command", self._on_gripper_command, RELIABLE)
        self._built = entities(self) - before
        if not self._thread.is_alive():
            self._thread.start()
        self.get_logger().info(
            f"{name}: contract {self.contract.name} {self.contract.interface_hash} fits rig {self.rig.name}"
        )
        return super().on_configure(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leaves the topics and the policy; configuring makes and loads them anew."""
        with self._inferring:
            destroy(self, self._built)
            del self.policy
        return super().on_cleanup(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Permits chunks."""
        event = {"event": "policy_active", "policy": self.policy_config.name, "contract": self.contract.interface_hash}
        self._events.publish(String(data=json.dumps(event)))
        with self._wake:
            self._is_active = True
            self._task_number += 1  # What the policy planned before is over.
            self._wake.notify()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Permits no more chunks; the filter holds when the last has ended."""
        with self._wake:
            self._is_active = False
        self._say("not active")
        return super().on_deactivate(state)

    def _on_gripper_command(self, message: Float64) -> None:
        self._builder.add_gripper_command(now_ns(self), message.data)

    def _on_task(self, message: String, info: Any) -> None:
        if info["source_timestamp"] < self._started_ns:
            self.get_logger().warning(f"task {message.data!r} is from before the start; publish it again to begin")
            return
        with self._wake:
            self._task = message.data.strip()
            self._task_number += 1
            self._wake.notify()

    # Inference: a thread of its own.

    def _infer_loop(self) -> None:
        begun = 0
        is_understood = False
        last_stamp_ns = 0
        next_s = time.monotonic()
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._is_over or (self._is_active and bool(self._task)), timeout=0.2)
                if self._is_over:
                    return
                task, number, is_active = self._task, self._task_number, self._is_active
            if not is_active or not task:
                if is_active:
                    self._say("no task: holding")
                continue
            with self._inferring:
                if not self._is_active:
                    continue
                if number != begun:
                    begun, is_understood = number, self._begin(task)
                next_s = max(next_s + 1.0 / self.policy_config.rate_hz, time.monotonic())
                stamp_ns = self._infer_once(task, number, last_stamp_ns) if is_understood else None
            last_stamp_ns = stamp_ns or last_stamp_ns
            time.sleep(max(0.0, next_s - time.monotonic()))

    def _begin(self, task: str) -> bool:
        try:
            self.policy.reset(task, self.policy_config.seed)
        except InstructionError as error:
            self._say(f"holding: {error}", DiagnosticStatus.ERROR)
            self.get_logger().error(str(error))
            self._events.publish(String(data=json.dumps({"event": "task_refused", "task": task, "reason": str(error)})))
            return False
        self._say(f"task: {task}")
        self._events.publish(String(data=json.dumps({"event": "task", "task": task})))
        return True

    def _infer_once(self, task: str, number: int, last_stamp_ns: int) -> int | None:
        begin_s = time.perf_counter()
        try:
            for camera, frame in self._cameras.take():
                self._builder.add_frame(camera, frame)
            observation = self._builder.build(now_ns(self), task)
        except SensorError as error:
            self._say(f"holding: {error}", DiagnosticStatus.WARN)
            self.get_logger().warning(str(error), throttle_duration_sec=2.0)
            return None
        if observation.stamp_ns <= last_stamp_ns:
            return None
        observed_s = time.perf_counter()
        delay_s = self._times_s["age"].at(0.5)
        try:
            chunk = self.policy.infer(
                observation, InferenceContext(expected_delay_s=0.0 if isnan(delay_s) else delay_s)
            )
        except Exception:
            # A policy is other people's code: whatever it raises, the arm holds, and the next observation is tried.
            self._say("holding: the policy failed, see its log", DiagnosticStatus.WARN)
            self.get_logger().error(f"policy failed:\n{traceback.format_exc()}", throttle_duration_sec=5.0)
            return observation.stamp_ns
        inferred_s = time.perf_counter()
        if self._task_number != number or not self._is_active:
            return observation.stamp_ns
        if not chunk.is_idle:
            self._publish(chunk, observation)
        done_s = time.perf_counter()
        self._say(chunk.note or f"task: {task}")
        for name, took_s in (
            ("observe", observed_s - begin_s),
            ("infer", inferred_s - observed_s),
            ("decode", done_s - inferred_s),
            ("age", (now_ns(self) - observation.stamp_ns) * 1e-9),
        ):
            self._times_s[name].add(took_s)
        return observation.stamp_ns

    def _publish(self, chunk: ActionChunk, observation: Observation) -> None:
        spec, name, stamp_ns = self.contract.action, self.policy_config.name, observation.stamp_ns
        try:
            if spec.space == "tool":
                tool = decode_tool_chunk(chunk, spec, stamp_ns, observation.T_base_tcp, name)
                tool = place_in_time(tool, spec, now_ns(self))
                self._tool_chunks.publish(
                    chunk_messages.to_tool_chunk_message(tool, self.robot.tcp_frame, self.robot.base_frame)
                )
            else:
                positions = self._states.at(stamp_ns, _STATE_TOLERANCE_NS).positions
                joint = decode_joint_chunk(chunk, spec, stamp_ns, positions, name)
                joint = place_in_time(joint, spec, now_ns(self))
                self._joint_chunks.publish(chunk_messages.to_joint_chunk_message(joint, self.robot.joint_names))
        except VlaRosError as error:
            self._say(f"holding: {error}", DiagnosticStatus.WARN)
            self.get_logger().error(str(error), throttle_duration_sec=2.0)

    def _say(self, status: str, level: bytes = DiagnosticStatus.OK) -> None:
        self._status, self._level = status, level

    def _publish_diagnostics(self) -> None:
        values: dict[str, object] = {"policy": self.policy_config.name, "task": self._task, "active": self._is_active}
        for name, times in self._times_s.items():
            values[f"{name}_p50_s"], values[f"{name}_p99_s"] = times.at(0.5), times.at(0.99)
        self._diagnostics.publish(
            messages.to_diagnostics(now_ns(self), self.get_fully_qualified_name(), self._status, values, self._level)
        )

    def close(self) -> None:
        """Ends the inference thread."""
        with self._wake:
            self._is_over = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)


def _make() -> list[PolicyNode]:
    node = PolicyNode()
    node.start()
    return [node]


def main() -> int:
    """Runs policy_node; looking for messages at 60 Hz spares it most of a 250 Hz stream."""
    return run(_make, poll_hz=60.0)


if __name__ == "__main__":
    sys.exit(main())
