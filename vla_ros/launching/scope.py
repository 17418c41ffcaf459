"""What a launch file sees while it is read from top to bottom: variables, environment, its own folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from vla_ros.errors import ConfigError, did_you_mean
from vla_ros.launching import templates
from vla_ros.launching.packages import find_share

NAMESPACE = "ros_namespace"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ARITY = {"dirname": (0, 0), "env": (1, 2), "find-pkg-share": (1, 1), "var": (1, 2)}


class Scope:
    """Variables and folder, changed as elements are visited.

    Args:
        variables: the values given for arguments.
        environ: environment variables.
    """

    def __init__(self, variables: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self.variables = dict(variables)
        self.environ = environ
        self.folder = Path()
        # ROS distributions up to Jazzy keep an included file's folder after its end and use it for its arguments.
        self.folder_in_ros = Path()
        # As in ROS one list a scope and all that are opened in it: what a group adds to it outlasts the group.
        self.remaps: list[tuple[str, str]] | None = None

    def set_remap(self, before: str, after: str) -> None:
        """Has every node from here on remap a name, before its own remaps."""
        self.remaps = self.remaps or []
        self.remaps.append((before, after))

    def text(self, text: str, where: str) -> str:
        """An attribute's value with everything substituted."""
        return self.substitute(templates.parse(text, where), where)

    def substitute(self, template: templates.Template, where: str) -> str:
        """A template's text.

        Raises:
            ConfigError: for a variable without value and a wrong number of arguments.
            MissingDependencyError: for a package that isn't installed.
        """
        return "".join(part if isinstance(part, str) else self._call(part, where) for part in template)

    def is_true(self, text: str, where: str) -> bool:
        """A condition's value: true, false, 1 or 0 in any case."""
        return truth_value(self.text(text, where), text, where)

    def words(self, text: str, where: str) -> tuple[str, ...]:
        """A command line's words. Text is split as by a shell; what a substitution yields stays in one piece."""
        words: list[str] = []
        word: list[str] = []

        def end_word() -> None:
            words.append("".join(word))
            word.clear()

        for part in templates.parse(text, where) or ("",):
            if isinstance(part, templates.Call):
                word.append(self._call(part, where))
                continue
            try:
                tokens = shlex.split(part)
            except ValueError as error:
                raise ConfigError(where, f"{text!r} can't be split into words ({error})", "close the quotes") from error
            if not tokens:
                end_word()
                continue
            if part[0].isspace() and word:
                end_word()
            for token in tokens[:-1]:
                word.append(token)
                end_word()
            word.append(tokens[-1])
            if part[-1].isspace():
                end_word()
        if word:
            end_word()
        return tuple(words)

    def namespace(self, below: str | None, where: str) -> str | None:
        """The absolute namespace that `below` means here, or None if neither it nor a pushed one is given."""
        base = self.variables.get(NAMESPACE)
        if below is None or below.startswith("/") or not base:
            joined = base if below is None else below
        else:
            joined = f"{base.rstrip('/')}/{below}"
        if joined is None:
            return None
        absolute = "/" + joined.strip("/") if not joined.startswith("/") else joined.rstrip("/") or "/"
        if absolute != "/" and not all(_NAME.fullmatch(name) for name in absolute[1:].split("/")):
            raise ConfigError(
                where, f"{absolute!r} isn't a namespace", "write letters, digits and _ between single slashes"
            )
        return absolute

    def node_name(self, text: str, where: str) -> str:
        """A node name."""
        name = self.text(text, where)
        if not _NAME.fullmatch(name):
            raise ConfigError(where, f"{name!r} isn't a node name", "write letters, digits and _, no digit first")
        return name

    def _call(self, call: templates.Call, where: str) -> str:
        least, most = _ARITY[call.name]
        if not least <= len(call.arguments) <= most:
            wanted = str(least) if least == most else f"{least} or {most}"
            problem = f"$({call.name} ...) has {len(call.arguments)} arguments, needs {wanted}"
            raise ConfigError(where, problem, "mend it; an argument with spaces has to be quoted")
        if call.name == "dirname":
            return self._dirname(where)
        name = self.substitute(call.arguments[0], where)
        if call.name == "find-pkg-share":
            return str(find_share(name, self.environ, where))
        known = self.variables if call.name == "var" else self.environ
        if name in known:
            return known[name]
        if len(call.arguments) == 2:
            return self.substitute(call.arguments[1], where)
        if call.name == "env":
            raise ConfigError(where, f"environment variable {name} isn't set", f"set it or write $(env {name} DEFAULT)")
        raise ConfigError(where, f"no argument or variable {name!r} here", did_you_mean(name, self.variables))

    def _dirname(self, where: str) -> str:
        if self.folder != self.folder_in_ros:
            problem = "$(dirname) in or after an <include> from another folder, which ros2 launch takes for that folder"
            raise ConfigError(where, problem, "move it before the include or write $(find-pkg-share ...)")
        return str(self.folder)


def truth_value(value: str, text: str, where: str) -> bool:
    """What a condition's value means; `text` is what was written, for the error."""
    word = value.strip().lower()
    if word in ("true", "1"):
        return True
    if word in ("false", "0"):
        return False
    raise ConfigError(where, f"{text!r} is {value!r}, not a truth value", "use true, false, 1 or 0")
