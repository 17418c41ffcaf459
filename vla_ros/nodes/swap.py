"""Another policy takes over, by the stack's public parameters alone: the arm holds until the new one's first chunk."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from vla_ros.errors import VlaRosError
from vla_ros.nodes.runtime import RELIABLE
from vla_ros.policies.registry import listed_policies, policy_name

_NODES = ("policy_node", "safety_node")
_ANSWER_S, _POLL_S = 10.0, 0.2
_NAMESPACE = r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*"


class SwapError(VlaRosError):
    """The stack doesn't let that policy take over; the text says why, and the arm is as it was."""


def swap(wanted: str, timeout_s: float, namespace: str = "", is_taken: bool = False) -> dict[str, Any]:
    """Makes a policy of the running stack the one that moves the arm.

    One that isn't resident is loaded first, while the other goes on. Teleoperation, or whoever else was selected, is
    taken over from only where that is asked for: else the policy only becomes the one that is active.

    Args:
        wanted: name of the policy, or its YAML file.
        timeout_s: how long it may take to load.
        namespace: of the stack; empty for none.
        is_taken: whether to take the arm from whoever has it. An operator who leads it then has it back at once.

    Returns:
        `from`, `to`, `was_loaded` (or on its way), `source` (who may move the arm now), `took_s` of the change itself.

    Raises:
        SwapError: if the stack isn't there or refuses.
        VlaRosError: if there is no such policy.
    """
    if namespace.strip("/") and not re.fullmatch(_NAMESPACE, namespace.strip("/"), re.ASCII):
        raise SwapError(f"--namespace {namespace!r} isn't one; write it as in the launch file, like cell_1/left")
    # The stack runs in another folder than this command.
    wanted = str(Path(wanted).expanduser().resolve()) if Path(wanted).expanduser().is_file() else wanted
    words = ["--ros-args", "-r", f"__ns:=/{namespace.strip('/')}"] if namespace.strip("/") else []
    rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
    try:
        client = _Client()
        try:
            return client.swap(wanted, timeout_s, is_taken)
        finally:
            client.destroy_node()
    finally:
        rclpy.try_shutdown()


class _Client(Node):
    def __init__(self) -> None:
        super().__init__("swap")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._refusals: dict[str, str] = {}
        self.create_subscription(String, "episode/event", self._on_event, RELIABLE)
        self._get = {name: self.create_client(GetParameters, f"{name}/get_parameters") for name in _NODES}
        self._set = {name: self.create_client(SetParameters, f"{name}/set_parameters") for name in _NODES}

    def swap(self, wanted: str, timeout_s: float, is_taken: bool) -> dict[str, Any]:
        name = policy_name(wanted)
        if not name:
            raise SwapError("no policy is named; give a name from config/policies, or a YAML file")
        before, resident = map(str, self._values("policy_node", ["policy", "resident"]))
        source = str(self._values("safety_node", ["source"])[0])
        active = _name_there(before)
        is_selected = is_taken or source == active
        loaded = {_name_there(word): word for word in (*listed_policies(resident), before)}
        was_loaded = name in loaded
        if name != active:
            # What is to be resident may be on its way yet. The one that was active stays: the next change may be back.
            self._load(name, wanted, list((loaded | {name: wanted}).values()), timeout_s)
        begin_s = time.monotonic()
        # The source first: from here on the arm holds, and the first chunk that comes is the new policy's.
        if is_selected and name != source:
            self._change("safety_node", "source", name)
        try:
            self._change("policy_node", "policy", wanted)
        except SwapError:
            if is_selected and name != source:
                self._change("safety_node", "source", source)
            raise
        now = name if is_selected else source
        took_s = time.monotonic() - begin_s
        return {"from": active, "to": name, "was_loaded": was_loaded, "source": now, "took_s": took_s}

    def _load(self, name: str, wanted: str, resident: list[str], timeout_s: float) -> None:
        """Has policy_node keep these loaded, and waits until there are topics for the wanted one's chunks."""
        self._refusals.clear()
        self._change("policy_node", "resident", ",".join(resident))
        topic = f"policies/{name}/action_chunk"
        deadline_s = time.monotonic() + timeout_s
        while not self.count_publishers(topic):
            if wanted in self._refusals:
                raise SwapError(f"policy {wanted!r} can't be loaded: {self._refusals[wanted]}")
            if time.monotonic() > deadline_s:
                mend = "its log says how far it is; --timeout waits longer"
                raise SwapError(f"policy_node hasn't loaded {wanted!r} within {timeout_s:g} s; {mend}")
            self._executor.spin_once(timeout_sec=_POLL_S)

    def _on_event(self, message: String) -> None:
        try:
            event = json.loads(message.data)
        except ValueError:
            return  # Others may publish there, too.
        if isinstance(event, dict) and event.get("event") == "policy_refused":
            self._refusals[str(event.get("policy"))] = str(event.get("reason"))

    def _values(self, node: str, names: list[str]) -> list[Any]:
        response = self._call(self._get[node], GetParameters.Request(names=names))
        for name, value in zip(names, response.values, strict=False):
            if value.type != ParameterType.PARAMETER_STRING:
                raise SwapError(f"{node} has no text parameter {name!r}; is it another version of vla_ros?")
        return [value.string_value for value in response.values]

    def _change(self, node: str, name: str, value: str) -> None:
        content = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=content)])
        result = self._call(self._set[node], request).results[0]
        if not result.successful:
            raise SwapError(f"{node} refused {name} = {value!r}: {result.reason}")

    def _call(self, client: Any, request: Any) -> Any:
        if not client.wait_for_service(timeout_sec=_ANSWER_S):
            mend = "is the stack running, in this ROS_DOMAIN_ID and namespace?"
            raise SwapError(f"no service {client.srv_name} within {_ANSWER_S:g} s; {mend}")
        future = client.call_async(request)
        self._executor.spin_until_future_complete(future, timeout_sec=_ANSWER_S)
        if not future.done():
            raise SwapError(f"service {client.srv_name} didn't answer within {_ANSWER_S:g} s")
        return future.result()


def _name_there(word: str) -> str:
    """The name of a policy that the stack has, whose file may be relative to the folder that it was started in."""
    try:
        return policy_name(word)
    except VlaRosError:
        return Path(word).stem
