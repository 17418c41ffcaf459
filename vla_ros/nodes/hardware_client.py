"""What a person says to hardware_node and to the controller from a terminal: how is it, arm it, recover."""

from __future__ import annotations

import time

from std_msgs.msg import String
from std_srvs.srv import Trigger

from vla_ros.hardware.readiness import HardwareState
from vla_ros.nodes.runtime import LATCHED, newest_only
from vla_ros.nodes.stack_client import ANSWER_S, StackClient, StackError, client_of

_POLL_S = 0.1
# A UR keeps a protective stop for 5 s, and its program and controllers take some more.
_RECOVERED_S = 40.0


def hardware_state(namespace: str = "") -> HardwareState:
    """What hardware_node says now.

    Raises:
        StackError: if there is none.
    """
    with client_of(_Client, namespace) as client:
        return client.state()


def arm(is_armed: bool, namespace: str = "") -> None:
    """Lets commands reach the arm, or shows them only. They begin anew where the arm stands.

    Raises:
        StackError: if there is no stack, or, to arm it, the hardware isn't ready; the arm is as it was.
    """
    with client_of(_Client, namespace) as client:
        reason = client.state().reason if is_armed else ""
        if reason:
            raise StackError(f"the arm can't be armed: {reason}")
        client.change("controller_node", "armed", is_armed)


def recover(namespace: str = "") -> str:
    """Leads the arm out of a fault.

    Returns:
        What hardware_node says to it.

    Raises:
        StackError: if it can't.
    """
    with client_of(_Client, namespace) as client:
        answer = client.call(client.create_client(Trigger, "hardware/recover"), Trigger.Request(), _RECOVERED_S)
    if not answer.success:
        raise StackError(str(answer.message))
    return str(answer.message)


class _Client(StackClient):
    def __init__(self) -> None:
        super().__init__("hardware_client", ("controller_node",))
        self._said = ""
        self.create_subscription(String, "hardware/state", self._take, newest_only(LATCHED))

    def state(self) -> HardwareState:
        """What hardware_node says.

        Raises:
            StackError: if it says nothing.
        """
        deadline_s = time.monotonic() + ANSWER_S
        while not self._said:
            if time.monotonic() > deadline_s:
                topic, mend = (
                    self.resolve_topic_name("hardware/state"),
                    "is a stack with hardware:=real or mock running?",
                )
                raise StackError(f"nothing on {topic} within {ANSWER_S:g} s; {mend}")
            self.spin_once(_POLL_S)
        return HardwareState.from_json(self._said)

    def _take(self, message: String) -> None:
        self._said = message.data
