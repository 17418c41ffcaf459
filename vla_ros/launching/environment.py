"""The environment that nodes are started in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vla_ros.errors import MissingDependencyError
from vla_ros.launching.graph import NodeAction
from vla_ros.launching.packages import Program

WITHOUT_ROS = {
    # Where the wheels put the ament index.
    "AMENT_PREFIX_PATH": sys.prefix,
    # Another machine's arm must not hear a demo.
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    # Fast DDS loses nearly all 640x480 images otherwise.
    "FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA",
}


def is_ros_sourced(environ: Mapping[str, str]) -> bool:
    """Whether a ROS distribution or workspace was sourced; our own entry points set the path to sys.prefix alone."""
    return environ.get("AMENT_PREFIX_PATH", sys.prefix) != sys.prefix


def defaults_without_ros(environ: Mapping[str, str]) -> dict[str, str]:
    """What an environment lacks of `WITHOUT_ROS`; nothing where ROS is sourced."""
    return {} if is_ros_sourced(environ) else {key: value for key, value in WITHOUT_ROS.items() if key not in environ}


def node_environment(node: NodeAction, program: Program, environ: Mapping[str, str]) -> dict[str, str]:
    """What a node sees: what every process does, then the node's `<env>`."""
    return {**process_environment(environ, program.python_path), **dict(node.env)}


def process_environment(environ: Mapping[str, str], python_path: Path | None) -> dict[str, str]:
    """What a process of ours sees: an environment, and defaults where ROS isn't sourced and the user set nothing.

    Args:
        environ: the environment.
        python_path: what has to come before `PYTHONPATH`, if anything.
    """
    child = {**environ, **defaults_without_ros(environ)}
    # The wheels' start-up re-executes python to set LD_LIBRARY_PATH unless marked as done: with the mark alone, no
    # ROS library is found.
    if "LD_LIBRARY_PATH" not in child:
        child.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    # Lines that a Python node prints appear at once and not when its buffer is full.
    child.setdefault("PYTHONUNBUFFERED", "1")
    if python_path:
        child["PYTHONPATH"] = os.pathsep.join(filter(None, (str(python_path), child.get("PYTHONPATH"))))
    return child


@contextmanager
def ros_for(what: str, extras: str = "ros") -> Iterator[None]:
    """Turns an import of our nodes that fails, anywhere in the block, into an error for the user.

    Args:
        what: they are needed for.
        extras: of vla_ros, with commas, that bring what is missing where ROS isn't installed.

    Raises:
        MissingDependencyError: with the command that installs ROS's Python packages.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "vla_ros":
            raise  # A fault of ours, which no installation mends.
        mend = f"python -m pip install 'vla_ros[{extras}]' ./interfaces"
        raise MissingDependencyError("rclpy", what, mend) from error
