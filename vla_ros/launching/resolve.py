"""A launch file and `key:=value` words to the graph of what would be started. Starts nothing."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from vla_ros.config import package_share
from vla_ros.errors import ConfigError, UnknownNameError, VlaRosError
from vla_ros.launching.elements import Element
from vla_ros.launching.graph import LaunchArgument, LaunchGraph
from vla_ros.launching.visitor import Visitor

COMMAND_LINE = "command line"
_ENDING = ".launch.xml"


def find_launch_file(name: str) -> Path:
    """The file that a path, or the bare name of one of ours, stands for.

    Args:
        name: a path, or `bringup` or `bringup.launch.xml` for a file of `share/vla_ros/launch`.

    Raises:
        UnknownNameError: if a bare name isn't there.
        ConfigError: if a path doesn't exist.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path.absolute()
    if path.name != name:
        raise ConfigError(name, "no such file", "check the path")
    folder = package_share() / "launch"
    files = {file.name.removesuffix(_ENDING): file for file in sorted(folder.glob(f"*{_ENDING}"))}
    if name.removesuffix(_ENDING) in files:
        return files[name.removesuffix(_ENDING)]
    raise UnknownNameError("launch file", name.removesuffix(_ENDING), files)


def parse_assignments(words: Iterable[str]) -> dict[str, str]:
    """`key:=value` words as a dictionary; the last of each key wins, a value may be empty.

    Raises:
        ConfigError: for a word without `:=` or without a key.
    """
    given: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator or not name:
            raise ConfigError(COMMAND_LINE, f"{word!r} isn't an assignment", "write name:=value, without spaces")
        given[name] = value
    return given


def resolve(
    path: Path, given: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> LaunchGraph:
    """What a launch file would start.

    Args:
        path: the launch file.
        given: values of its arguments.
        environ: environment variables; the process's own if None.

    Raises:
        UnknownNameError: for a given argument that no file declares.
        ConfigError: for anything wrong in a file, with file and line.
        MissingDependencyError: for a package that isn't installed and a file that only ROS can read.
    """
    given, environ = given or {}, os.environ if environ is None else environ
    survey = ArgumentSurvey(given, environ)
    survey.visit_file(path, given, COMMAND_LINE)
    for name in given:
        is_typo = bool(difflib.get_close_matches(name, survey.arguments, n=1))
        if name not in survey.arguments and (survey.is_complete or is_typo):
            raise UnknownNameError("launch argument", name, survey.arguments)
    visitor = Visitor(given, environ)
    visitor.visit_file(path, given, COMMAND_LINE)
    for name in given:
        if name not in visitor.arguments and name not in survey.arguments:
            raise UnknownNameError("launch argument", name, survey.arguments)
    return LaunchGraph(path.absolute(), tuple(visitor.arguments.values()), tuple(visitor.nodes))


def declared_arguments(
    path: Path, given: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[LaunchArgument, ...]:
    """The arguments of a launch file and its includes, also of parts that a condition leaves out, as far as they can be
    known without the values that are still missing."""
    given, environ = given or {}, os.environ if environ is None else environ
    survey = ArgumentSurvey(given, environ)
    survey.visit_file(path, given, COMMAND_LINE)
    return tuple(survey.arguments.values())


class ArgumentSurvey(Visitor):
    """A walk that only collects arguments: it goes on after missing values and looks into inactive parts too.

    `is_complete` says whether every active part could be followed.
    """

    is_complete = True

    def _visit(self, element: Element) -> None:
        try:
            is_active = self._is_active(element)
        except VlaRosError:
            is_active = False
            self.is_complete = False
        outer = dict(self.scope.variables)
        open_files, folder = len(self._open_files), self.scope.folder
        try:
            self._execute(element)
        except VlaRosError:
            del self._open_files[open_files:]
            self.scope.folder = folder
            self.is_complete = self.is_complete and not is_active
        if not is_active:
            self.scope.variables = outer
        # What $(dirname) means is for the strict walk to judge.
        self.scope.folder_in_ros = folder

    def _set_given(self, root: Element, given: Mapping[str, str], where: str) -> None:
        self.scope.variables.update(given)

    def _node(self, element: Element) -> None:
        pass
