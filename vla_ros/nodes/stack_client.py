"""What commands that talk to a running stack have in common: a node for a moment, services and parameters of others."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from vla_ros.errors import VlaRosError

ANSWER_S = 10.0
_TURN_S = 0.1
_NAMESPACE = r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*"


class StackError(VlaRosError):
    """The running stack isn't there, or refuses; the text says why."""


def call(client: Any, request: Any, turn: Callable[[], None], answer_s: float = ANSWER_S) -> Any:
    """The answer of a service.

    Args:
        client: of the service.
        request: to it.
        turn: called until it comes; lets the client's node hear what has come, and takes some of the time.
        answer_s: patience with who serves it.

    Raises:
        StackError: if nobody serves it or no answer comes.
    """
    deadline_s = time.monotonic() + ANSWER_S
    while not client.service_is_ready():
        if time.monotonic() > deadline_s:
            mend = "is the stack running, in this ROS_DOMAIN_ID and namespace?"
            raise StackError(f"no service {client.srv_name} within {ANSWER_S:g} s; {mend}")
        turn()
    future = client.call_async(request)
    deadline_s = time.monotonic() + answer_s
    while not future.done():
        if time.monotonic() > deadline_s:
            raise StackError(f"service {client.srv_name} didn't answer within {answer_s:g} s")
        turn()
    return future.result()


def change(client: Any, node: str, name: str, value: str | bool, turn: Callable[[], None]) -> None:
    """Sets a parameter of a node by a client of its `set_parameters`; see `call`.

    Raises:
        StackError: also if it refuses.
    """
    if isinstance(value, bool):
        content = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=value)
    else:
        content = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
    request = SetParameters.Request(parameters=[Parameter(name=name, value=content)])
    result = call(client, request, turn).results[0]
    if not result.successful:
        raise StackError(f"{node} refused {name} = {value!r}: {result.reason}")


class StackClient(Node):
    """Asks the stack's nodes one thing after the other.

    Args:
        name: of the node that it is meanwhile.
        nodes: whose parameters it reads and sets.
    """

    def __init__(self, name: str, nodes: tuple[str, ...] = ()) -> None:
        super().__init__(name)
        self._own_executor = SingleThreadedExecutor()
        self._own_executor.add_node(self)
        self._get = {name: self.create_client(GetParameters, f"{name}/get_parameters") for name in nodes}
        self._set = {name: self.create_client(SetParameters, f"{name}/set_parameters") for name in nodes}

    def spin_once(self, timeout_s: float) -> None:
        """Hears what has come, or waits for it."""
        self._own_executor.spin_once(timeout_sec=timeout_s)

    def call(self, client: Any, request: Any, answer_s: float = ANSWER_S) -> Any:
        """The answer of a service.

        Raises:
            StackError: if nobody serves it or no answer comes.
        """
        return call(client, request, lambda: self.spin_once(_TURN_S), answer_s)

    def texts(self, node: str, names: list[str]) -> list[str]:
        """Text parameters of a node.

        Raises:
            StackError: also if it has none of that name and type.
        """
        response = self.call(self._get[node], GetParameters.Request(names=names))
        for name, value in zip(names, response.values, strict=False):
            if value.type != ParameterType.PARAMETER_STRING:
                raise StackError(f"{node} has no text parameter {name!r}; is it another version of vla_ros?")
        return [str(value.string_value) for value in response.values]

    def change(self, node: str, name: str, value: str | bool) -> None:
        """Sets a parameter of a node.

        Raises:
            StackError: also if it refuses.
        """
        change(self._set[node], node, name, value, lambda: self.spin_once(_TURN_S))


Client = TypeVar("Client", bound=StackClient)


@contextlib.contextmanager
def client_of(kind: type[Client], namespace: str) -> Iterator[Client]:
    """A client in a stack's namespace, empty for none.

    Raises:
        StackError: if the namespace isn't one.
    """
    namespace = namespace.strip("/")
    if namespace and not re.fullmatch(_NAMESPACE, namespace, re.ASCII):
        raise StackError(f"--namespace {namespace!r} isn't one; write it as in the launch file, like cell_1/left")
    words = ["--ros-args", "-r", f"__ns:=/{namespace}"] if namespace else []
    rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
    try:
        client = kind()  # type: ignore[call-arg]
        try:
            yield client
        finally:
            client.destroy_node()
    finally:
        rclpy.try_shutdown()
