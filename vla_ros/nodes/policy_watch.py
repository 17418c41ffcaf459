"""Whether policy_node is active: asked all the time, since a process that was killed says nothing."""

from __future__ import annotations

import time

from lifecycle_msgs.srv import GetState
from rclpy.node import Node
from rclpy.task import Future

_ACTIVE = "active"
# It answers between its turns at a network; graphs notice a killed process only after twenty seconds.
_SILENT_S = 2.0


class PolicyWatch:
    """Asks policy_node for the state of its lifecycle.

    Args:
        node: asks.
    """

    def __init__(self, node: Node) -> None:
        self._client = node.create_client(GetState, "policy_node/get_state")
        self._question: Future | None = None
        self._asked_s = self._answered_s = -_SILENT_S
        self._label = ""

    @property
    def problem(self) -> str:
        """Why nothing can be expected of it, empty if it is active. Each look goes on asking."""
        now_s = time.monotonic()
        self._take_answer(now_s)
        if self._question is None and self._client.service_is_ready():
            self._question, self._asked_s = self._client.call_async(GetState.Request()), now_s
        if now_s - self._answered_s > _SILENT_S:
            return f"policy_node has given no answer for {_SILENT_S:g} s: it loads, or doesn't run; see its log"
        return "" if self._label == _ACTIVE else f"policy_node is {self._label}; its log says why it takes no part"

    def _take_answer(self, now_s: float) -> None:
        question = self._question
        if question is None:
            return
        if question.done():
            self._label, self._answered_s, self._question = str(question.result().current_state.label), now_s, None
        elif now_s - self._asked_s > _SILENT_S:
            # Whom it went to may be dead; one that was started since hears only what is asked from now on.
            self._client.remove_pending_request(question)
            self._question = None
