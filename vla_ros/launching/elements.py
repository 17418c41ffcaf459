"""XML text to elements that know their file and line, and the one table of what a launch file may contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from vla_ros.errors import ConfigError, did_you_mean
from vla_ros.launching import templates


@dataclass(frozen=True)
class Element:
    """An XML element. `where` is `file:line` of its opening tag."""

    tag: str
    attributes: Mapping[str, str]
    where: str
    children: tuple[Element, ...] = ()

    def all(self, tag: str) -> tuple[Element, ...]:
        """The children of one kind."""
        return tuple(child for child in self.children if child.tag == tag)


@dataclass(frozen=True)
class Shape:
    """What an element may hold: attributes that must and may be there, and children with their own shapes."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    children: Mapping[str, Shape] = field(default_factory=dict)


_CONDITION = ("if", "unless")
_NAMED_VALUE = Shape(("name", "value"))
_PUSH = Shape(("namespace",), _CONDITION)
_NODE = Shape(
    ("pkg", "exec"),
    ("name", "namespace", "output", "respawn", "respawn_delay", "args", *_CONDITION),
    {
        "param": Shape((), ("name", "value", "type", "from")),
        "remap": Shape(("from", "to")),
        "env": _NAMED_VALUE,
    },
)
_ACTIONS: dict[str, Shape] = {
    "arg": Shape(("name",), ("default", "description", *_CONDITION), {"choice": Shape(("value",))}),
    "let": Shape(("name", "value"), _CONDITION),
    "node": _NODE,
    "include": Shape(("file",), _CONDITION, {"arg": _NAMED_VALUE}),
    "push_ros_namespace": _PUSH,
    "push-ros-namespace": _PUSH,
    "set_remap": Shape(("from", "to"), _CONDITION),
}
_ACTIONS["group"] = Shape((), ("scoped", *_CONDITION), _ACTIONS)
_LAUNCH = Shape((), (), _ACTIONS)

_MENDS = {
    "on_exit": 'Humble refuses it too; write <env name="VLA_ROS_REQUIRED" value="true"/> inside the node',
    "allow_substs": "give the values as <param name= value=> beside the file",
    "executable": 'start a node: <node pkg="..." exec="..."/>',
}
_NO_TEMPLATE = {"description", "scoped", "respawn_delay", "type"}


def read_launch_file(path: Path) -> Element:
    """The checked `<launch>` element of a file.

    Raises:
        ConfigError: with file, line and name for what isn't XML or isn't in the table above.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            str(path), f"can't be read ({error.strerror})", "check the path and its permissions"
        ) from error
    root = _parse(text, path)
    if root.tag != "launch":
        raise ConfigError(root.where, f"the outermost element is <{root.tag}>", "it has to be <launch>")
    _check(root, _LAUNCH)
    return root


@dataclass
class _Open:
    tag: str
    attributes: dict[str, str]
    where: str
    children: list[Element] = field(default_factory=list)

    def close(self) -> Element:
        return Element(self.tag, self.attributes, self.where, tuple(self.children))


def _parse(text: bytes, path: Path) -> Element:
    parser = expat.ParserCreate()
    outermost = _Open("", {}, str(path))
    stack = [outermost]

    def where() -> str:
        return f"{path}:{parser.CurrentLineNumber}"

    def on_start(tag: str, attributes: dict[str, str]) -> None:
        stack.append(_Open(tag, attributes, where()))

    def on_end(_tag: str) -> None:
        done = stack.pop()
        stack[-1].children.append(done.close())

    def on_text(data: str) -> None:
        if data.strip():
            raise ConfigError(where(), f"text {data.strip()!r} between elements", "delete it or make it a comment")

    def on_doctype(*_: object) -> None:
        raise ConfigError(where(), "a DOCTYPE", "delete it; launch files have none")

    parser.StartElementHandler = on_start
    parser.EndElementHandler = on_end
    parser.CharacterDataHandler = on_text
    parser.StartDoctypeDeclHandler = on_doctype
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        problem = expat.errors.messages[error.code]
        raise ConfigError(f"{path}:{error.lineno}", f"isn't XML ({problem})", "mend the line") from error
    return outermost.children[0]


def _check(element: Element, shape: Shape) -> None:
    known = (*shape.required, *shape.optional)
    for name, text in element.attributes.items():
        if name not in known:
            mend = _MENDS.get(name, did_you_mean(name, known))
            raise ConfigError(element.where, f"unknown attribute {name!r} of <{element.tag}>", mend)
        if name not in _NO_TEMPLATE:
            templates.parse(text, element.where)
    for name in shape.required:
        if name not in element.attributes:
            raise ConfigError(element.where, f"<{element.tag}> has no attribute {name!r}", "add it")
    if "if" in element.attributes and "unless" in element.attributes:
        raise ConfigError(element.where, f"<{element.tag}> has both 'if' and 'unless'", "keep one of them")
    for child in element.children:
        if child.tag not in shape.children:
            mend = _MENDS.get(child.tag, did_you_mean(child.tag, shape.children))
            problem = f"unknown element <{child.tag}> in <{element.tag}>"
            raise ConfigError(child.where, problem, f"{mend} (for anything else use ros2 launch)")
        _check(child, shape.children[child.tag])
