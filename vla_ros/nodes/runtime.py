"""What all our executables share: start, parameters, quality of service, end."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

# Wheels from PyPI leave this unset; rclpy needs it to find its libraries' resources.
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)

import rclpy
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor, TimeoutException
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle import Node as LifecycleNode
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from vla_ros.errors import VlaRosError
from vla_ros.stopping import SignalFlag

RELIABLE = QoSProfile(
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
    history=HistoryPolicy.KEEP_LAST,
    depth=1000,
)
"""For our publishers of anything but images, and for subscriptions where each message counts. What is lost on the way
is sent again while its publisher still has it, and Fast DDS asks as seldom as every three seconds: four at 250 Hz."""

IMAGES = QoSProfile(
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
    history=HistoryPolicy.KEEP_LAST,
    depth=100,
)
"""For our publishers of images, likewise: 92 MB of a camera of 640x480."""

SENSOR = QoSProfile(
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
    history=HistoryPolicy.KEEP_LAST,
    depth=10,
)
"""For subscriptions to sensor streams: hears reliable and best-effort publishers."""

LATCHED = QoSProfile(
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
    history=HistoryPolicy.KEEP_LAST,
    depth=10,
)
"""For publishers of task, events and static TF."""


# Turns of a poll for one of the executor, where the nodes poll their streams themselves.
_SELDOM = 4
_is_over = SignalFlag()


def is_ending() -> bool:
    """Whether the process was asked to end, for who waits while nodes are made."""
    return _is_over.is_set()


def newest_only(profile: QoSProfile) -> QoSProfile:
    """The same quality of service keeping only the newest message."""
    return QoSProfile(
        reliability=profile.reliability, durability=profile.durability, history=HistoryPolicy.KEEP_LAST, depth=1
    )


def parameter(
    node: Node, name: str, default: Any, description: str, *, is_fixed: bool = True, least: int | None = None
) -> Any:
    """Declares a parameter and returns its value.

    Args:
        node: declares it.
        name: of the parameter.
        default: it has the type of this.
        description: for whoever lists the parameters.
        is_fixed: whether it can't be set later.
        least: lower limit of an integer.

    Raises:
        VlaRosError: if it is given as another type or out of range.
    """
    descriptor = ParameterDescriptor(description=description, read_only=is_fixed)
    if least is not None:
        descriptor.integer_range = [IntegerRange(from_value=least, to_value=2**31 - 1, step=1)]
    try:
        return node.declare_parameter(name, default, descriptor).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        raise VlaRosError(f"{node.get_name()}: {error}; {name!r} is: {description}") from error


def required_parameter(node: Node, name: str, description: str, *, is_fixed: bool = True) -> str:
    """A text parameter without a default; for the rest see `parameter`.

    Raises:
        VlaRosError: if it isn't set.
    """
    value = str(parameter(node, name, "", description, is_fixed=is_fixed))
    if not value:
        raise VlaRosError(f"{node.get_name()}: parameter {name!r} is not set ({description}); pass -p {name}:=...")
    return value


def state_folder() -> Path:
    """Where what must outlive a process is kept: one folder for each ROS domain of this user."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "vla_ros" / f"domain-{os.environ.get('ROS_DOMAIN_ID', '0')}"


def raise_priority() -> None:
    """Puts this process before others, where the system allows it; on a robot's computer it should."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)


def now_ns(node: Node) -> int:
    """Present ROS time."""
    return int(node.get_clock().now().nanoseconds)


class Percentiles:
    """The last few hundred of some figure, and their percentiles. Any thread."""

    def __init__(self, capacity: int = 512) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._values: list[float] = []

    def add(self, value: float) -> None:
        """Takes one more."""
        with self._lock:
            self._values.append(value)
            del self._values[: -self._capacity]

    def at(self, fraction: float) -> float:
        """The value below which that fraction lies, NaN while there is none."""
        with self._lock:
            values = sorted(self._values)
        return values[min(len(values) - 1, int(fraction * len(values)))] if values else float("nan")


def run(make: Callable[[], Sequence[Node]], poll_hz: float | None = None, args: Sequence[str] | None = None) -> int:
    """Makes nodes, spins them until SIGINT or SIGTERM, and ends them in order.

    A node may have `close()`, called before it is destroyed: the place to brake.

    Args:
        make: makes the nodes; what it raises of VlaRosError becomes one line and exit code 2.
        poll_hz: look for messages only so often, and so read only the newest of a fast stream; None to wait for each.
            See `make_turn`.
        args: command line, default sys.argv.

    Returns:
        The exit code.
    """
    _is_over.clear()

    def end(_signal: int, _frame: FrameType | None) -> None:
        _is_over.set()

    # Kept to the very end: Ctrl-C in a terminal comes twice, from it and from the launcher, and the end takes a moment.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    nodes: Sequence[Node] = ()
    try:
        nodes = make()
        executor = SingleThreadedExecutor()
        for node in nodes:
            executor.add_node(node)
        turn = None if poll_hz is None else make_turn(executor, nodes)
        _spin(executor, _is_over, turn, poll_hz or 0.0)
        return 0
    except VlaRosError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        for node in nodes:
            if hasattr(node, "close"):
                node.close()
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()


def serve_ready(executor: SingleThreadedExecutor) -> None:
    """Everything that is ready now, and no more: a stream faster than who calls this must not keep it busy."""
    for _ in range(64):
        try:
            handler, _, _ = executor.wait_for_ready_callbacks(timeout_sec=0.0)
        except TimeoutException:
            return
        handler()
        error = handler.exception()
        if error is not None:
            raise error


def make_turn(executor: SingleThreadedExecutor, nodes: Sequence[Node]) -> Callable[[], None]:
    """What is to be called at each poll: `poll()` of the nodes that have it; and the executor, if any has it seldom.

    An executor's turn looks at all that its nodes have, some 0.3 ms without anything to do.
    """
    polls = [node.poll for node in nodes if hasattr(node, "poll")]
    every = _SELDOM if polls else 1
    turns = itertools.count()

    def turn() -> None:
        for poll in polls:
            poll()
        if next(turns) % every == 0:
            serve_ready(executor)

    return turn


def _spin(
    executor: SingleThreadedExecutor, is_over: SignalFlag, turn: Callable[[], None] | None, poll_hz: float
) -> None:
    try:
        while not is_over.is_set() and rclpy.ok():
            if turn is None:
                executor.spin_once(timeout_sec=0.1)
                continue
            next_s = time.monotonic() + 1.0 / poll_hz
            turn()
            time.sleep(max(0.0, next_s - time.monotonic()))
    except (ExternalShutdownException, ShutdownException):
        return


def logged_transition(
    method: Callable[[Any, LifecycleState], TransitionCallbackReturn],
) -> Callable[[Any, LifecycleState], TransitionCallbackReturn]:
    """A lifecycle callback that says in the log why it failed; rclpy itself keeps that to itself."""

    @functools.wraps(method)
    def logged(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return method(node, state)
        except VlaRosError as error:
            node.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception:
            node.get_logger().error(f"{method.__name__} failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    return logged


def entities(node: Node) -> set[Any]:
    """The publishers, subscriptions, timers and guard conditions that a node has now."""
    return {*node.publishers, *node.subscriptions, *node.timers, *node.guards}


def destroy(node: Node, built: set[Any]) -> None:
    """Takes entities off a node again; the set is empty then."""
    for entity in built & set(node.publishers):
        node.destroy_publisher(entity)
    for entity in built & set(node.subscriptions):
        node.destroy_subscription(entity)
    for entity in built & set(node.timers):
        node.destroy_timer(entity)
    for entity in built & set(node.guards):
        node.destroy_guard_condition(entity)
    built.clear()


def autostart(node: LifecycleNode) -> None:
    """Configures and activates a lifecycle node.

    Raises:
        VlaRosError: if it refuses; its log says why.
    """
    for transition in (node.trigger_configure, node.trigger_activate):
        if transition() is not TransitionCallbackReturn.SUCCESS:
            raise VlaRosError(f"{node.get_name()} could not be started; its log above says why")
