"""Versions of what results depend on, read from package metadata: nothing is imported for it."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from vla_ros import __version__


def installed_version(distribution: str) -> str | None:
    """Version of an installed Python distribution, None where there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def ros_version() -> str | None:
    """The sourced ROS distribution, else the wheels from PyPI, else None."""
    wheel = installed_version("ros-rclpy")
    return os.environ.get("ROS_DISTRO") or (f"ros-rclpy {wheel} (PyPI)" if wheel else None)


def versions() -> dict[str, str | None]:
    """What a result should be kept with."""
    return {
        "vla_ros": __version__,
        "python": platform.python_version(),
        "mujoco": installed_version("mujoco"),
        "ros": ros_version(),
    }
