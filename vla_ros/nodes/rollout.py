"""Drives episodes of a running stack from outside, as a person with a stopwatch would: reset, task, watch, judge."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_ros.contract import Rig
from vla_ros.errors import SensorError, UnknownNameError, VlaRosError
from vla_ros.nodes import chunk_messages, messages
from vla_ros.nodes.rivals import who_commands
from vla_ros.nodes.runtime import LATCHED, RELIABLE, SENSOR, newest_only, now_ns
from vla_ros.nodes.stack_listener import StackListener
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, ImageArray, JointChunk

HOME = "home"
CELLS = {"sim": "sim_node", "mock": "mock_node"}
"""The node that has the simulated cell, by what moves."""
_HOME_SPEED_RAD_S = 0.6
_HOME_TOLERANCE_RAD = 0.01
_CALL_TIMEOUT_S = 10.0


class StackError(VlaRosError):
    """The stack doesn't answer as it should."""


class RolloutClient(StackListener):
    """Talks to a running stack by its public topics and services only.

    Args:
        model: the robot.
        rig: the cell.
        source: the policy to be judged.
        on_frame: called with (camera, stamp ns, image) for every image.
        hardware: what moves, a key of `CELLS`: only a simulated cell can be reset and judged.

    Raises:
        UnknownNameError: for other hardware.
    """

    def __init__(
        self,
        model: RobotModel,
        rig: Rig,
        source: str,
        on_frame: Callable[[str, int, ImageArray], None] | None = None,
        hardware: str = "sim",
    ) -> None:
        if hardware not in CELLS:
            raise UnknownNameError("hardware with a simulated cell", hardware, CELLS)
        super().__init__("rollout", rig, on_frame)
        driver = model.config.driver
        self._states_topic = "joint_states" if hardware == "sim" or driver is None else driver.joint_states
        self._model, self._source, self._cameras = model, source, tuple(rig.cameras)
        self._reader = messages.JointStateReader(model.names, self._states_topic)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._task = self.create_publisher(String, "task", LATCHED)
        self._home = self.create_publisher(JointTrajectory, f"policies/{HOME}/joint_chunk", RELIABLE)
        self._events = self.create_publisher(String, "episode/event", LATCHED)
        self._reset = self.create_client(Trigger, "sim/reset")
        self._safety_reset = self.create_client(Trigger, "safety/reset")
        self._set_sim = self.create_client(SetParameters, f"{CELLS[hardware]}/set_parameters")
        self._set_safety = self.create_client(SetParameters, "safety_node/set_parameters")

    # Driving

    def spin_until(self, condition: Callable[[], bool], timeout_s: float, alive: Callable[[], None]) -> bool:
        """Listens until a condition holds.

        Args:
            condition: looked at after every message, at least every 50 ms.
            timeout_s: wall time after which to give up.
            alive: called a few times a second; raises where waiting has become pointless.

        Returns:
            Whether the condition held.
        """
        deadline_s = time.monotonic() + timeout_s
        next_look_s = 0.0
        while not condition():
            now_s = time.monotonic()
            if now_s > deadline_s:
                return False
            if now_s > next_look_s:
                alive()
                next_look_s = now_s + 0.2
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def wait_until_ready(self, timeout_s: float, alive: Callable[[], None]) -> None:
        """Waits for the whole stack: simulator, motion, cameras, policy.

        Raises:
            StackError: naming what hasn't come.
        """

        def missing() -> list[str]:
            topics = ["joint_command", "sim/ground_truth", "safety/verdict"]
            parts = [topic for topic in topics if not self.counts[topic]]
            parts += [f"images of camera {name}" for name in self._cameras if not self.counts[name]]
            parts += [] if self._diagnostic("policy_node").get("active") == "True" else ["an active policy"]
            clients = (self._reset, self._set_sim, self._set_safety)
            return parts + [f"service {client.srv_name}" for client in clients if not client.service_is_ready()]

        if not self.spin_until(lambda: not missing(), timeout_s, alive):
            raise StackError(f"not there after {timeout_s:g} s: {', '.join(missing())}; the logs of the nodes say why")

    def refuse_company(self) -> None:
        """Makes sure that no stack runs here yet.

        Raises:
            StackError: naming who publishes joint commands in this ROS domain.
        """
        self.listen_for(0.7, lambda: None)
        found = who_commands(self)
        if found:
            raise StackError(
                f"{found} already commands an arm in ROS domain {os.environ.get('ROS_DOMAIN_ID', '0')}; "
                "stop it, or set ROS_DOMAIN_ID to another number"
            )

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The arm's joints, in the order of its commands."""
        return self._model.names

    def chunk_counts(self) -> tuple[int, int, int]:
        """Chunks since the policy was selected: how many came, and of those how many too late, or refused otherwise."""
        counts = [self.figure("safety_node", f"chunks_{key}") for key in ("taken", "late", "refused")]
        taken, late, refused = (0 if math.isnan(count) else int(count) for count in counts)
        return taken + late + refused, late, refused

    def begin(self, seed: int, alive: Callable[[], None], needed: str = "") -> dict[str, FloatArray]:
        """Brings the arm home and the scene to a seed; the policy has no task meanwhile.

        Args:
            seed: of the scene.
            alive: as for `spin_until`.
            needed: the instruction that the scene is to allow; empty for whatever the seed gives.

        Returns:
            Ground truth at the start.

        Raises:
            StackError: if the arm doesn't come home or the stack doesn't answer.
        """
        self._task.publish(String(data=""))
        self._call(self._safety_reset, Trigger.Request(), alive)
        self._set(self._set_safety, "source", HOME, alive)
        self.go_home(alive)
        self._set(self._set_sim, "seed", seed, alive)
        self._set(self._set_sim, "needed", needed, alive)
        answer = self._call(self._reset, Trigger.Request(), alive)
        if not answer.success:
            raise StackError(f"the simulator refused seed {seed}: {answer.message}")
        self._set(self._set_safety, "source", self._source, alive)
        # What is under way shows the scene from before.
        self.listen_for(0.4, alive)
        heard = self.counts["sim/ground_truth"]
        if not self.spin_until(lambda: self.counts["sim/ground_truth"] > heard, 5.0, alive):
            raise StackError("sim/ground_truth fell silent")
        return self.truth

    def go_home(self, alive: Callable[[], None]) -> None:
        """Moves the arm home with an open gripper, as a joint-space source of its own.

        Raises:
            StackError: if it isn't there in time.
        """
        state = self._read_state(alive)
        way = self._model.home - state
        duration_s = max(0.5, 1.9 * float(np.max(np.abs(way))) / _HOME_SPEED_RAD_S)
        phase = np.linspace(0.0, 1.0, 25)[1:]
        # Minimum jerk: Flash and Hogan, J. Neuroscience 1985; its peak speed is 1.875 times the mean.
        share = 10.0 * phase**3 - 15.0 * phase**4 + 6.0 * phase**5
        for _ in range(3):
            chunk = JointChunk(
                now_ns(self), state + share[:, None] * way, np.ones(len(phase)), 0.05 + duration_s * phase, HOME
            )
            self._home.publish(chunk_messages.to_joint_chunk_message(chunk, self._model.names))
            self.listen_for(duration_s + 0.3, alive)
            state = self._read_state(alive)
            way = self._model.home - state
            if float(np.max(np.abs(way))) < _HOME_TOLERANCE_RAD:
                return
        raise StackError(f"the arm isn't home, {np.max(np.abs(way)):.3f} rad away; the filter is {self.verdict}")

    def start_task(self, task: str) -> None:
        """Publishes the instruction."""
        self._events.publish(String(data=json.dumps({"event": "start", "task": task})))
        self._task.publish(String(data=task))

    def end_task(self, outcome: str, reason: str) -> None:
        """Takes the instruction back; the arm holds."""
        self._task.publish(String(data=""))
        self._events.publish(String(data=json.dumps({"event": outcome, "reason": reason})))

    def listen_for(self, duration_s: float, alive: Callable[[], None]) -> None:
        """Listens for so long."""
        self.spin_until(lambda: False, duration_s, alive)

    def _read_state(self, alive: Callable[[], None]) -> FloatArray:
        """One measured joint state; subscribed to only as long as it takes, since it comes at 250 Hz."""
        found: list[FloatArray] = []

        def on_state(message: JointState) -> None:
            try:
                found.append(self._reader.read(message, None).positions)
            except SensorError as error:
                self.get_logger().error(str(error))

        subscription = self.create_subscription(JointState, self._states_topic, on_state, newest_only(SENSOR))
        is_heard = self.spin_until(lambda: bool(found), 5.0, alive)
        self.destroy_subscription(subscription)
        if not is_heard:
            raise StackError(f"nothing on {self._states_topic} for 5 s; is the simulator running?")
        return found[-1]

    def _set(self, client: Client, name: str, value: str | int, alive: Callable[[], None]) -> None:
        kind = ParameterType.PARAMETER_STRING if isinstance(value, str) else ParameterType.PARAMETER_INTEGER
        content = ParameterValue(type=kind)
        if isinstance(value, str):
            content.string_value = value
        else:
            content.integer_value = value
        request = SetParameters.Request(parameters=[ParameterMessage(name=name, value=content)])
        results = self._call(client, request, alive).results
        if not results[0].successful:
            raise StackError(f"{client.srv_name} refused {name} = {value!r}: {results[0].reason}")

    def _call(self, client: Client, request: Any, alive: Callable[[], None]) -> Any:
        future = client.call_async(request)
        if not self.spin_until(future.done, _CALL_TIMEOUT_S, alive):
            raise StackError(f"service {client.srv_name} didn't answer within {_CALL_TIMEOUT_S:g} s")
        return future.result()
