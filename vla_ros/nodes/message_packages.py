"""Packages of messages that only some machines need: what to say where one is missing."""

from __future__ import annotations

from vla_ros.errors import MissingDependencyError


def missing_package(error: ImportError, needed_for: str) -> MissingDependencyError:
    """The error to raise for an import that failed.

    Args:
        error: of the import.
        needed_for: what can't go on.

    Raises:
        ImportError: the error itself, if what is missing is no package of messages.
    """
    package = str(error.name or "").partition(".")[0]
    if not package.endswith("_msgs"):
        raise error
    mend = (
        f"apt install ros-$ROS_DISTRO-{package.replace('_', '-')}, or build the driver's workspace and source it; on a "
        "machine without ROS: pip install ./interfaces"
    )
    return MissingDependencyError(package, needed_for, mend)
