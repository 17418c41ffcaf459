"""What a launch file comes down to: frozen values that name every node to start and everything it is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

Scalar = bool | int | float | str
ParameterValue = Scalar | list[bool] | list[int] | list[float] | list[str]


@dataclass(frozen=True)
class Parameter:
    """One `<param name= value=>`, typed as ROS types it."""

    name: str
    value: ParameterValue


@dataclass(frozen=True)
class ParameterFile:
    """One `<param from=>`: a YAML file the node reads itself, `/**` and node names inside it included."""

    path: Path


@dataclass(frozen=True)
class NodeAction:
    """One node to start.

    Args:
        package: ROS package that holds the executable.
        executable: its name in `lib/<package>`.
        where: file and line of the `<node>`.
        name: node name, or None for the one the program chooses.
        namespace: absolute namespace, or None where nothing set one.
        parameters: values and files in the order in which they apply; the last one wins.
        remaps: (from, to) in the order in which they apply; the first match wins.
        env: variables added to the environment, `VLA_ROS_REQUIRED` among them.
        arguments: words on the command line before `--ros-args`.
        output: `screen`, `log` (standard output to the log only) or `both`.
        is_respawned: whether it is started again when it ends.
        respawn_delay_s: pause before that.
        is_required: whether its end ends everything.
    """

    package: str
    executable: str
    where: str
    name: str | None = None
    namespace: str | None = None
    parameters: tuple[Parameter | ParameterFile, ...] = ()
    remaps: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    output: str = "log"
    is_respawned: bool = False
    respawn_delay_s: float = 0.0
    is_required: bool = False

    @property
    def full_name(self) -> str | None:
        """`/namespace/name`, or None unless the launch file gives both."""
        if self.name is None or self.namespace is None:
            return None
        return f"{self.namespace.rstrip('/')}/{self.name}"

    @property
    def params_files(self) -> tuple[Path, ...]:
        """The parameter files alone."""
        return tuple(item.path for item in self.parameters if isinstance(item, ParameterFile))

    @property
    def values(self) -> dict[str, ParameterValue]:
        """The parameters given one by one, the last of each name."""
        return {item.name: item.value for item in self.parameters if isinstance(item, Parameter)}


@dataclass(frozen=True)
class LaunchArgument:
    """A declared `<arg>`.

    Args:
        name: as in `name:=value`.
        where: file and line.
        default: its text before substitution, or None if a value must be given.
        description: for `--show-args`.
        choices: allowed values; empty means any.
        value: the value in force, or None where it was only listed.
    """

    name: str
    where: str
    default: str | None = None
    description: str = ""
    choices: tuple[str, ...] = ()
    value: str | None = None


@dataclass(frozen=True)
class LaunchGraph:
    """A resolved launch file: its declared arguments with their values, and the nodes in their order."""

    file: Path
    arguments: tuple[LaunchArgument, ...] = ()
    nodes: tuple[NodeAction, ...] = field(default=())

    def labels(self) -> tuple[str, ...]:
        """A short name for each node, no two alike: node name, else executable; namespaced or numbered if needed."""
        short = [node.name or node.executable for node in self.nodes]
        counts = Counter(short)
        labels: list[str] = []
        for node, label in zip(self.nodes, short, strict=True):
            if counts[label] > 1 and node.namespace not in (None, "/"):
                label = f"{(node.namespace or '').strip('/')}/{label}"
            number, unique = 1, label
            while unique in labels:
                number += 1
                unique = f"{label}-{number}"
            labels.append(unique)
        return tuple(labels)
