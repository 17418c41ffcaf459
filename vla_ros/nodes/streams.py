"""Fast streams in a thread of their own: a turn of an executor looks at all that its nodes have, 0.5 ms a message."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

_LONGEST_WAIT_NS = 100_000_000
_MOST_TAKEN = 10


class _ServedElsewhere(CallbackGroup):
    """Keeps executors from serving what is in it."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        return None


_Callback = Callable[[Any, dict[str, int]], None]


def _leave(_message: object) -> None:
    """What an executor would call, and never does. (Humble's has one argument only.)"""


class _Subscriptions:
    """Subscriptions of a node that its executor leaves alone.

    Args:
        node: subscribes.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._group = _ServedElsewhere()
        self._served: tuple[tuple[Subscription[Any], _Callback], ...] = ()

    def subscribe(self, kind: type, topic: str, callback: _Callback, profile: QoSProfile, is_raw: bool = False) -> None:
        """Calls back with each message and its info (`source_timestamp`, ns, and so on), in the thread that serves.

        Args:
            kind: of the messages.
            topic: their name.
            callback: is called.
            profile: quality of service.
            is_raw: whether messages come as they are on the wire: bytes, in CDR.
        """
        subscription = self._node.create_subscription(
            kind, topic, _leave, profile, callback_group=self._group, raw=is_raw
        )
        self._served = (*self._served, (subscription, callback))


class Polled(_Subscriptions):
    """Subscriptions that somebody looks at now and then: of a fast stream that is the cheapest way.

    Args:
        node: subscribes.
        most: taken of a subscription at a time.
    """

    def __init__(self, node: Node, *, most: int = _MOST_TAKEN) -> None:
        super().__init__(node)
        self._most = most

    def take(self) -> None:
        """Serves what has come, as much as a queue can hold. One thread only."""
        for subscription, callback in self._served:
            with subscription.handle:
                for _ in range(self._most):
                    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                    if taken is None:
                        break
                    callback(*taken)

    def close(self) -> None:
        """Looks at nothing any more; the node's owner takes the subscriptions off it."""
        self._served = ()


class Streams(_Subscriptions):
    """Subscriptions that a thread of its own serves."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._wake: GuardCondition = node.create_guard_condition(lambda: None, self._group)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
        self.failure: BaseException | None = None
        """What ended the thread, if not `stop`."""

    def subscribe(self, kind: type, topic: str, callback: _Callback, profile: QoSProfile, is_raw: bool = False) -> None:
        """See above; the thread hears of it at once."""
        super().subscribe(kind, topic, callback, profile, is_raw)
        self._wake.trigger()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def check(self) -> None:
        """To be called now and then by who owns the thread.

        Raises:
            RuntimeError: if it has failed.
        """
        if self.failure is not None:
            raise RuntimeError("the intake of messages failed") from self.failure

    def stop(self) -> None:
        """Ends the thread after the message in progress."""
        self._is_over.set()
        self._wake.trigger()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        try:
            while not self._is_over.is_set() and self._node.context.ok():
                self._serve(self._served)
        except BaseException as error:
            self.failure = error

    def _serve(self, served: tuple[tuple[Subscription[Any], _Callback], ...]) -> None:
        """Serves some subscriptions until there are others."""
        with contextlib.ExitStack() as handles, self._node.context.handle, self._wake.handle:
            for subscription, _ in served:
                handles.enter_context(subscription.handle)
            waiting = _rclpy.WaitSet(len(served), 1, 0, 0, 0, 0, self._node.context.handle)
            while served is self._served and not self._is_over.is_set() and self._node.context.ok():
                waiting.clear_entities()
                waiting.add_guard_condition(self._wake.handle)
                for subscription, _ in served:
                    waiting.add_subscription(subscription.handle)
                waiting.wait(_LONGEST_WAIT_NS)
                ready = waiting.get_ready_entities("subscription")
                for subscription, callback in served:
                    if subscription.handle.pointer in ready:
                        taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                        if taken is not None:
                            callback(*taken)
