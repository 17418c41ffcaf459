r"""Text with substitutions, `$(name argument ...)`, nested and quoted as in ROS 2 launch files.

Outside a substitution only `$(` means something, and `\$(` stands for itself; a backslash before any other character
disappears. Arguments are separated by exactly one space; one that holds a space is quoted as a whole, '...' or "...".
Backslashes in arguments, which ROS takes in ways of its own, are refused.

Source: the behaviour of the `launch` package (Humble to Kilted), against which the parity tests compare this module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vla_ros.errors import ConfigError, did_you_mean

KNOWN = ("dirname", "env", "find-pkg-share", "var")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Call:
    """One `$(name argument ...)`."""

    name: str
    arguments: tuple[Template, ...] = ()


Template = tuple[str | Call, ...]


def parse(text: str, where: str) -> Template:
    """Splits text into literal pieces and substitutions.

    Args:
        text: an attribute's value.
        where: file and line, for the error text.

    Raises:
        ConfigError: for an unknown substitution or one that isn't well formed.
    """
    return _Reader(text, where).template()


def is_plain(template: Template) -> bool:
    """Whether there is nothing to substitute."""
    return all(isinstance(part, str) for part in template)


def unescape(text: str) -> str:
    """Drops the backslash of every backslash pair."""
    return re.sub(r"\\(.)", r"\1", text)


class _Reader:
    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.at = text, where, 0

    def template(self) -> Template:
        parts: list[str | Call] = []
        start = 0
        while self.at < len(self.text):
            if self._is_call():
                parts += self._literal(start)
                parts.append(self._call(is_quoted=False))
                start = self.at
            else:
                self.at += 1
        parts += self._literal(start)
        return tuple(parts)

    def _is_call(self) -> bool:
        is_escaped = self.at > 0 and self.text[self.at - 1] == "\\"
        return self.text.startswith("$(", self.at) and not is_escaped

    def _literal(self, start: int) -> list[str]:
        return [unescape(self.text[start : self.at])] if self.at > start else []

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _call(self, *, is_quoted: bool) -> Call:
        self.at += 2
        match = _NAME.match(self.text, self.at)
        if not match:
            raise self._error("a substitution without a name", "write $(name argument)")
        name = match.group()
        if name not in KNOWN:
            raise self._error(f"unknown substitution $({name})", did_you_mean(name, KNOWN))
        self.at = match.end()
        arguments: list[Template] = []
        while self._peek() == " ":
            self.at += 1
            arguments.append(self._argument(is_quoted=is_quoted))
        if self._peek() != ")":
            raise self._error(
                f"$({name} ...) isn't closed", "end it with ), quote arguments that hold spaces or brackets"
            )
        self.at += 1
        return Call(name, tuple(arguments))

    def _argument(self, *, is_quoted: bool) -> Template:
        if self._peek() in ("'", '"') and not is_quoted:
            quote = self._peek()
            self.at += 1
            argument = self._pieces(until=quote, is_quoted=True)
            if self._peek() != quote:
                raise self._error("a quoted argument without its closing quote", f"add {quote}")
            self.at += 1
            return argument
        start = self.at
        argument = self._pieces(until=" )", is_quoted=is_quoted)
        if self.at == start:
            raise self._error("an empty argument", "put one space between arguments, none before ), or quote: ''")
        return argument

    def _pieces(self, *, until: str, is_quoted: bool) -> Template:
        """Text and nested substitutions up to an unescaped character of `until`."""
        is_bare = until == " )"
        parts: list[str | Call] = []
        start = self.at
        while self._peek() and self._peek() not in until:
            if self._is_call():
                parts += self._literal(start)
                parts.append(self._call(is_quoted=is_quoted))
                start = self.at
            elif self._peek() == "\\":
                raise self._error("a backslash in an argument", "quote the argument instead")
            elif is_bare and self._peek() in "'\"(":
                raise self._error(f"a bare {self._peek()} in an argument", "quote the whole argument")
            else:
                self.at += 1
        parts += self._literal(start)
        return tuple(parts)

    def _error(self, problem: str, mend: str) -> ConfigError:
        return ConfigError(self.where, f"{problem} in {self.text!r}", mend)
