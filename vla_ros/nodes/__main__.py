"""`python -m vla_ros.nodes NAME [ROS arguments]`: runs one of our executables."""

from __future__ import annotations

import importlib
import signal
import sys

from vla_ros.errors import VlaRosError

EXECUTABLES = (
    "camera_node",
    "controller_node",
    "gripper_node",
    "hardware_node",
    "mock_node",
    "motion",
    "policy_node",
    "recorder_node",
    "safety_node",
    "sim_node",
    "teleop_node",
    "tf_node",
)


def main() -> int:
    """Runs the executable named by the first argument."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in EXECUTABLES:
        sys.stderr.write(f"usage: python -m vla_ros.nodes NAME ...; NAME is one of: {', '.join(EXECUTABLES)}\n")
        return 2
    # Imports take seconds: Ctrl-C then ends the process at once and without a traceback; `run` takes over after them.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    del sys.argv[1]
    try:
        module = importlib.import_module(f"vla_ros.nodes.{name}")
    except VlaRosError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    code = int(module.main())
    # Python gives signals back on its way out, where a launcher's, after the terminal's own Ctrl-C, would kill it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(main())
