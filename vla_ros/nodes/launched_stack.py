"""The whole stack in simulation, launched for a while, and who drives episodes of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from vla_ros.config import package_share
from vla_ros.contract import Rig
from vla_ros.errors import VlaRosError
from vla_ros.launching.environment import defaults_without_ros
from vla_ros.launching.resolve import resolve
from vla_ros.launching.supervisor import Supervisor
from vla_ros.robots.model import RobotModel
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
        check_interrupt = stack.enter_context(_interrupts())
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        client = RolloutClient(model, rig, source, on_frame)
        stack.callback(client.destroy_node)
        client.refuse_company()
        supervisor = Supervisor(graph, log_dir=logs_dir, is_quiet=True)
        progress(f"starting {len(graph.nodes)} nodes (logs in {logs_dir})")
        stack.enter_context(supervisor)

        def alive() -> None:
            check_interrupt()
            death = supervisor.poll()
            if death is not None:
                raise VlaRosError(f"{death}{_last_line(logs_dir / f'{death.label}.log')}")

        client.wait_until_ready(_START_TIMEOUT_S, alive)
        yield client, alive


@contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM as what a call raises: in rclpy it would come out as another error. A second is at once."""
    wished = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if wished.is_set():
            raise KeyboardInterrupt
        wished.set()

    def check() -> None:
        if wished.is_set():
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in numbers if is_main}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_line(log: Path) -> str:
    """What a node said last, for the end of an error text."""
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return f": {lines[-1]} (more in {log})" if lines else ""
