"""Action servers whose goals end later, from a timer: no goal holds a thread, and none keeps an executor spinning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from rclpy.action import ActionServer, CancelResponse
from rclpy.node import Node

Outcome = Literal["succeed", "abort", "canceled"]


def serve_action(node: Node, kind: type, name: str, begin: Callable[[Any], None]) -> ActionServer:
    """An action that takes every goal.

    Args:
        node: serves it.
        kind: type of the action.
        name: of the action.
        begin: called with the handle of a goal; `conclude` is to be called with it, sooner or later.
    """
    return ActionServer(
        node,
        kind,
        name,
        # Named at the end of each goal instead.
        lambda handle: kind.Result(),  # type: ignore[attr-defined]
        handle_accepted_callback=begin,
        cancel_callback=lambda _handle: CancelResponse.ACCEPT,
    )


def conclude(handle: Any, outcome: Outcome, result: Any) -> None:
    """Ends a goal."""

    def end(ended: Any) -> Any:
        getattr(ended, outcome)()
        return result

    handle.execute(end)
