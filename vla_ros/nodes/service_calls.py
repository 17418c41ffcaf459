"""Services and actions of other nodes, called without waiting in a callback: steps that a timer goes through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node
from std_srvs.srv import Trigger

from vla_ros.errors import VlaRosError

Steps = Iterator[None]
"""What is to be done: each `next` does what can be done now. It ends when all is done, or raises VlaRosError."""

_THERE_S, _ANSWER_S = 5.0, 10.0


class Service:
    """A service of another node.

    Args:
        node: calls.
        kind: its type.
        name: relative to the node's namespace.
    """

    def __init__(self, node: Node, kind: Any, name: str) -> None:
        self._client = node.create_client(kind, name)
        self.name = str(self._client.srv_name)
        self.response: Any = None
        """Of the last call that was answered."""

    @property
    def is_there(self) -> bool:
        """Whether somebody serves it now."""
        return bool(self._client.service_is_ready())

    def call(self, request: Any) -> Steps:
        """Calls it; its answer is `response` when the steps are over.

        Raises:
            VlaRosError: if nobody serves it, or the answer takes too long.
        """
        yield from wait_for(lambda: self.is_there, _THERE_S, f"nobody serves {self.name}; is the arm's driver running?")
        future = self._client.call_async(request)
        yield from wait_for(future.done, _ANSWER_S, f"{self.name} doesn't answer")
        self.response = future.result()

    def trigger(self) -> Steps:
        """Calls a std_srvs/Trigger.

        Raises:
            VlaRosError: also if it refuses, with its words.
        """
        yield from self.call(Trigger.Request())
        if not self.response.success:
            raise VlaRosError(f"{self.name} refused: {self.response.message or 'it gave no reason'}")

    def set(self, request: Any) -> Steps:
        """Calls a service whose answer has `success` and perhaps `error`.

        Raises:
            VlaRosError: also if it refuses, with its words.
        """
        yield from self.call(request)
        if not self.response.success:
            raise VlaRosError(f"{self.name} refused: {getattr(self.response, 'error', '') or 'it gave no reason'}")


def send_goal(client: ActionClient, goal: Any, name: str) -> Steps:
    """Sends a goal to an action and waits for its end.

    Raises:
        VlaRosError: if nobody serves it, it is refused, or doesn't succeed.
    """
    yield from wait_for(client.server_is_ready, _THERE_S, f"nobody serves {name}; is the arm's driver running?")
    accepted = client.send_goal_async(goal)
    yield from wait_for(accepted.done, _ANSWER_S, f"{name} doesn't answer")
    handle = accepted.result()
    if handle is None or not handle.accepted:
        raise VlaRosError(f"{name} refused the goal")
    result = handle.get_result_async()
    yield from wait_for(result.done, _ANSWER_S, f"{name} doesn't come to an end")
    if result.result().status != GoalStatus.STATUS_SUCCEEDED:
        raise VlaRosError(f"{name} failed; the driver's log says why")


def wait_for(is_done: Callable[[], bool], timeout_s: float, problem: str) -> Steps:
    """Steps until something holds.

    Raises:
        VlaRosError: with the problem, when it takes too long.
    """
    deadline_s = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > deadline_s:
            raise VlaRosError(f"{problem} (waited {timeout_s:g} s)")
        yield
