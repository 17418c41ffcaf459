"""The URDF text of a robot, from plain URDF or xacro, with or without ROS."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from vla_ros.errors import ConfigError, MissingDependencyError
from vla_ros.robots.config import RobotConfig


def load_description(config: RobotConfig, prefix: str = "", arguments: Mapping[str, str] | None = None) -> str:
    """The URDF that `config.description` names, xacro expanded.

    Args:
        prefix: put before every link and joint by a xacro that has an argument `prefix`, for several arms in one tree;
            empty for the configuration's own.
        arguments: further xacro arguments, such as `{"camera": "false"}`.

    Raises:
        ConfigError: for a file that can't be read or expanded, isn't a URDF, or is plain URDF but arguments are given.
        MissingDependencyError: for a xacro file where xacro isn't installed.
    """
    path = config.description_file
    given = dict(arguments or {})
    if prefix or config.prefix:
        given["prefix"] = prefix or config.prefix
    if path.suffix == ".xacro":
        text = _expand_xacro(path, given)
    elif given:
        raise ConfigError(
            str(path), f"is plain URDF and takes no arguments ({', '.join(sorted(given))})", "use a .xacro file"
        )
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(path), f"can't be read ({error})", "check the path and its permissions") from error
    check_urdf(text, str(path))
    return text


def check_urdf(description: str, where: str) -> None:
    """Refuses what parsers refuse without saying why: bad XML, another root, names given twice.

    Raises:
        ConfigError: naming `where` and the culprit.
    """
    try:
        root = ElementTree.fromstring(description)
    except ElementTree.ParseError as error:
        raise ConfigError(where, f"isn't XML ({error})", "mend the line it names") from error
    if root.tag != "robot":
        raise ConfigError(where, f"its root element is <{root.tag}>", "a URDF has <robot>")
    for kind in ("link", "joint"):
        names = [element.get("name", "") for element in root.findall(kind)]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ConfigError(where, f"{kind} named more than once: {', '.join(duplicates)}", "rename all but one")


def _expand_xacro(path: Path, arguments: dict[str, str]) -> str:
    xacro = _import_xacro(path)
    try:
        return str(xacro.process_file(str(path), mappings=arguments).toxml())
    # An expression in the file can raise whatever Python can, and xacro passes some of it on unwrapped.
    except Exception as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        mend = "mend the file it names; our own files include by relative path and need no $(find)"
        raise ConfigError(str(path), f"xacro can't expand it ({problem})", mend) from error


def _import_xacro(path: Path) -> types.ModuleType:
    try:
        import xacro
    except ImportError as error:
        mend = "pip install xacro, or apt install ros-$ROS_DISTRO-xacro"
        raise MissingDependencyError("xacro", str(path), mend) from error
    module: types.ModuleType = xacro
    return module
