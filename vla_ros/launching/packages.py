"""Where ROS packages and their executables lie, with ROS, with `pip install`, and in our own checkout."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vla_ros.config import package_share
from vla_ros.errors import ConfigError, MissingDependencyError, did_you_mean

OWN_PACKAGE = "vla_ros"


@dataclass(frozen=True)
class Program:
    """The words that start an executable, and what has to come before `PYTHONPATH` for them, if anything."""

    words: tuple[str, ...]
    python_path: Path | None = None


def find_share(package: str, environ: Mapping[str, str], where: str) -> Path:
    """A package's share folder, as `$(find-pkg-share package)` gives it.

    Raises:
        MissingDependencyError: if no prefix has the package.
    """
    if package == OWN_PACKAGE:
        return package_share()
    return _prefix(package, environ, where) / "share" / package


def find_program(package: str, executable: str, environ: Mapping[str, str], where: str) -> Program:
    """How a node's program is started: `<prefix>/lib/<package>/<executable>`, or our own module in a checkout.

    Args:
        package: ROS package.
        executable: its name there.
        environ: where `AMENT_PREFIX_PATH` is looked up; `sys.prefix` comes after it.
        where: file and line, for the error text.

    Raises:
        MissingDependencyError: if no prefix has the package.
        ConfigError: if the package has no such executable.
    """
    if package == OWN_PACKAGE and (checkout := _checkout()):
        return _module(checkout, executable, where)
    folder = _prefix(package, environ, where) / "lib" / package
    path = folder / executable
    if path.is_file() and os.access(path, os.X_OK):
        return Program((str(path),))
    programs = [item.name for item in folder.iterdir() if os.access(item, os.X_OK)] if folder.is_dir() else []
    raise ConfigError(where, f"no executable {executable!r} in {folder}", did_you_mean(executable, programs))


def _prefix(package: str, environ: Mapping[str, str], where: str) -> Path:
    prefixes = [Path(item) for item in environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if item]
    for prefix in [*prefixes, Path(sys.prefix)]:
        if (prefix / "share/ament_index/resource_index/packages" / package).is_file():
            return prefix
    mend = f"install ros-<distribution>-{package.replace('_', '-')}, or source the workspace that has it"
    raise MissingDependencyError(f"ROS package {package!r}", where, mend)


def _checkout() -> Path | None:
    share = package_share()
    return share if (share / OWN_PACKAGE / "launching").is_dir() else None


def _module(checkout: Path, executable: str, where: str) -> Program:
    # The folder that an installation copies to lib/vla_ros; `node` is the script behind all of them.
    folder = checkout / "scripts" / "executables"
    names = [path.name for path in folder.iterdir() if path.name != "node"]
    if executable in names:
        return Program((sys.executable, "-m", f"{OWN_PACKAGE}.nodes", executable), checkout)
    raise ConfigError(where, f"no executable {executable!r} in {folder}", did_you_mean(executable, names))
