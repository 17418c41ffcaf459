"""Walks a launch file and what it includes from top to bottom, as `ros2 launch` does, and collects nodes and arguments.

Rules taken over from ROS: variables set by `<arg>`, `<let>` and an include's arguments stay set after it, down to the
end of the innermost scoped `<group>`, as do remaps set by `<set_remap>`; a value given from outside wins over an
`<arg>`'s default; an argument without default has to be passed to every include explicitly; pushed namespaces end with
the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vla_ros.errors import ConfigError, MissingDependencyError
from vla_ros.launching.elements import Element, read_launch_file
from vla_ros.launching.graph import LaunchArgument, NodeAction, Parameter, ParameterFile
from vla_ros.launching.parameters import typed_value
from vla_ros.launching.scope import NAMESPACE, Scope, truth_value
from vla_ros.launching.templates import unescape

REQUIRED = "VLA_ROS_REQUIRED"
_OUTPUTS = ("screen", "log", "both")


class Visitor:
    """One walk.

    Args:
        given: argument values from outside.
        environ: environment variables, for `$(env)` and the package search.
    """

    def __init__(self, given: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self.scope = Scope(given, environ)
        self.nodes: list[NodeAction] = []
        self.arguments: dict[str, LaunchArgument] = {}
        self._open_files: list[Path] = []

    def visit_file(self, path: Path, given: Mapping[str, str], where: str) -> None:
        """Visits one file.

        Args:
            path: the file.
            given: what is passed to this very file.
            where: who asked for it, for the error text.
        """
        path = path.absolute()
        if path in self._open_files:
            chain = " -> ".join(file.name for file in [*self._open_files, path])
            raise ConfigError(where, f"the files include each other in a circle: {chain}", "take one include out")
        root = read_launch_file(path)
        outer = self.scope.folder
        self.scope.folder = self.scope.folder_in_ros = path.parent
        self._open_files.append(path)
        self._set_given(root, given, where)
        self._visit_all(root)
        self._open_files.pop()
        self.scope.folder = outer

    def _set_given(self, root: Element, given: Mapping[str, str], where: str) -> None:
        for element in _unconditional_arguments(root):
            name = unescape(element.attributes["name"])
            if "default" not in element.attributes and name not in given:
                self._declare(element, None)
                raise _missing_value(name, element.where, where)
        self.scope.variables.update(given)

    def _visit_all(self, parent: Element) -> None:
        for child in parent.children:
            self._visit(child)

    def _visit(self, element: Element) -> None:
        if self._is_active(element):
            self._execute(element)

    def _is_active(self, element: Element) -> bool:
        if "if" in element.attributes:
            return self.scope.is_true(element.attributes["if"], element.where)
        if "unless" in element.attributes:
            return not self.scope.is_true(element.attributes["unless"], element.where)
        return True

    def _execute(self, element: Element) -> None:
        if element.tag == "arg":
            self._argument(element)
        elif element.tag == "let":
            self.scope.variables[self._text(element, "name")] = self._text(element, "value")
        elif element.tag == "node":
            self._node(element)
        elif element.tag == "include":
            self._include(element)
        elif element.tag == "group":
            self._group(element)
        elif element.tag == "set_remap":
            self.scope.set_remap(self._text(element, "from"), self._text(element, "to"))
        else:
            pushed = self.scope.namespace(self._text(element, "namespace"), element.where)
            self.scope.variables[NAMESPACE] = pushed or "/"

    def _text(self, element: Element, attribute: str) -> str:
        return self.scope.text(element.attributes[attribute], element.where)

    def _argument(self, element: Element) -> None:
        name = unescape(element.attributes["name"])
        self._declare(element, None)
        if name not in self.scope.variables:
            if "default" not in element.attributes:
                raise _missing_value(name, element.where, element.where)
            self.scope.variables[name] = self._text(element, "default")
        value = self.scope.variables[name]
        argument = self._declare(element, value)
        if argument.choices and value not in argument.choices:
            problem = f"argument {name!r} is {value!r}"
            raise ConfigError(element.where, problem, f"choose from: {', '.join(argument.choices)}")

    def _declare(self, element: Element, value: str | None) -> LaunchArgument:
        argument = LaunchArgument(
            unescape(element.attributes["name"]),
            element.where,
            element.attributes.get("default"),
            unescape(element.attributes.get("description", "")),
            tuple(unescape(choice.attributes["value"]) for choice in element.children),
            value,
        )
        known = self.arguments.get(argument.name)
        if known is None or known.value is None:
            self.arguments[argument.name] = argument
        return argument

    def _group(self, element: Element) -> None:
        scoped = element.attributes.get("scoped", "true")
        if scoped not in ("true", "1", "false", "0"):
            raise ConfigError(element.where, f"'scoped' is {scoped!r}", "write true or false; it takes no substitution")
        outer, outer_remaps = dict(self.scope.variables), self.scope.remaps
        self._visit_all(element)
        if scoped in ("true", "1"):
            self.scope.variables, self.scope.remaps = outer, outer_remaps

    def _include(self, element: Element) -> None:
        path = Path(self._text(element, "file"))
        if not path.is_absolute():
            raise ConfigError(element.where, f"file {str(path)!r} isn't absolute", "write $(dirname)/... before it")
        if not path.is_file():
            raise ConfigError(
                element.where, f"includes {path}, which doesn't exist", "check the name and what it is made of"
            )
        if not path.name.endswith((".xml", ".launch")):
            mend = "source ROS 2 and start the file with `ros2 launch`; vla-ros launch reads XML only"
            raise MissingDependencyError("ros2 launch", f"{path} (included at {element.where})", mend)
        # ROS sets the arguments one after another, each seen by the next, with the folder already changed.
        self.scope.folder_in_ros = path.parent.absolute()
        given: dict[str, str] = {}
        for child in element.children:
            name = self._text(child, "name")
            given[name] = self.scope.variables[name] = self._text(child, "value")
        self.visit_file(path, given, element.where)

    def _node(self, element: Element) -> None:
        given = element.attributes
        where = element.where
        is_respawned = "respawn" in given and self.scope.is_true(given["respawn"], where)
        env = tuple((self._text(child, "name"), self._text(child, "value")) for child in element.all("env"))
        is_required = truth_value(dict(env).get(REQUIRED, "false"), REQUIRED, where)
        if is_required and is_respawned:
            raise ConfigError(where, "a required node can't be respawned", "keep one of them")
        output = self._text(element, "output") if "output" in given else "log"
        if output not in _OUTPUTS:
            raise ConfigError(where, f"output {output!r}", f"choose from: {', '.join(_OUTPUTS)}")
        below = self._text(element, "namespace") if "namespace" in given else None
        self.nodes.append(
            NodeAction(
                self._text(element, "pkg"),
                self._text(element, "exec"),
                where,
                self.scope.node_name(given["name"], where) if "name" in given else None,
                self.scope.namespace(below, where),
                tuple(self._parameter(child) for child in element.all("param")),
                (
                    *(self.scope.remaps or ()),
                    *((self._text(child, "from"), self._text(child, "to")) for child in element.all("remap")),
                ),
                env,
                self.scope.words(given["args"], where) if "args" in given else (),
                output,
                is_respawned,
                _delay_s(given.get("respawn_delay", "0"), where),
                is_required,
            )
        )

    def _parameter(self, element: Element) -> Parameter | ParameterFile:
        given, where = element.attributes, element.where
        if set(given) == {"from"}:
            path = Path(self._text(element, "from"))
            if not path.is_file():
                raise ConfigError(where, f"parameter file {path} doesn't exist", "check the path")
            return ParameterFile(path)
        if "from" in given or not {"name", "value"} <= set(given):
            raise ConfigError(where, "a <param> without name and value", "write name= and value=, or from= alone")
        value = typed_value(
            given["value"], given.get("type"), lambda template: self.scope.substitute(template, where), where
        )
        return Parameter(self._text(element, "name"), value)


def _unconditional_arguments(element: Element) -> list[Element]:
    """The `<arg>`s of a file that no group's condition can skip."""
    found: list[Element] = []
    for child in element.children:
        if child.tag == "arg":
            found.append(child)
        elif child.tag == "group" and not {"if", "unless"} & set(child.attributes):
            found += _unconditional_arguments(child)
    return found


def _missing_value(name: str, declared: str, where: str) -> ConfigError:
    mend = (
        f"give {name}:=VALUE" if where in ("command line", declared) else f'add <arg name="{name}" value="..."/> there'
    )
    return ConfigError(where, f"argument {name!r}, declared at {declared}, has no value", mend)


def _delay_s(text: str, where: str) -> float:
    try:
        delay_s = float(text)
    except ValueError:
        delay_s = -1.0
    if not 0 <= delay_s < float("inf"):
        raise ConfigError(where, f"respawn_delay is {text!r}", "write seconds, 0 or more; it takes no substitution")
    return delay_s
