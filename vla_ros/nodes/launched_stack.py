"""The whole stack in simulation, launched for a while, and who drives episodes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vla_ros.config import package_share
from vla_ros.contract import Rig
from vla_ros.errors import VlaRosError
from vla_ros.launching.environment import defaults_without_ros
from vla_ros.launching.resolve import resolve
from vla_ros.launching.supervisor import Supervisor
from vla_ros.robots.model import RobotModel
from vla_ros.stopping import stop_signals
from vla_ros.types import ImageArray

if TYPE_CHECKING:
    from vla_ros.nodes.rollout import RolloutClient

_START_TIMEOUT_S = 60.0


@contextmanager
def launched_stack(
    arguments: Mapping[str, str],
    model: RobotModel,
    rig: Rig,
    source: str,
    logs_dir: Path,
    on_frame: Callable[[str, int, ImageArray], None],
    progress: Callable[[str], None],
) -> Iterator[tuple[RolloutClient, Callable[[], None]]]:
    """Launches bringup.launch.xml, and gives a client and what raises when a node of it has died.

    Args:
        arguments: of the launch file.
        model: the robot.
        rig: the cell.
        source: name of the policy.
        logs_dir: for the nodes' output.
        on_frame: called with (camera, stamp ns, image) for every image.
        progress: called with a line for the person who watches.

    Raises:
        VlaRosError: if the stack doesn't start.
    """
    graph = resolve(package_share() / "launch" / "bringup.launch.xml", dict(arguments))
    os.environ.update(defaults_without_ros(os.environ))
    # Now that the environment is settled.
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from vla_ros.nodes.rollout import RolloutClient

    with ExitStack() as stack:
        # Python's own KeyboardInterrupt would come out of rclpy as another error.
        is_wished = stack.enter_context(stop_signals())
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        client = RolloutClient(model, rig, source, on_frame, arguments.get("hardware", "sim"))
        stack.callback(client.destroy_node)
        client.refuse_company()
        supervisor = Supervisor(graph, log_dir=logs_dir, is_quiet=True)
        progress(f"starting {len(graph.nodes)} nodes (logs in {logs_dir})")
        stack.enter_context(supervisor)

        def alive() -> None:
            if is_wished():
                raise KeyboardInterrupt
            death = supervisor.poll()
            if death is not None:
                raise VlaRosError(f"{death}{_last_line(logs_dir / f'{death.label}.log')}")

        client.wait_until_ready(_START_TIMEOUT_S, alive)
        yield client, alive


def _last_line(log: Path) -> str:
    """What a node said last, for the end of an error text."""
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return f": {lines[-1]} (more in {log})" if lines else ""
