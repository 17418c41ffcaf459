"""Prints what rclpy offers to our nodes, read at its source: names, arguments, what comes back. Nothing of it is run.

    git clone -b humble https://github.com/ros2/rclpy
    .venv/bin/python scripts/record_rclpy.py rclpy/rclpy humble > test/data/rclpy_humble.yaml

Only what vla_ros/nodes imports. scripts/check_humble.py holds the nodes to it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

NODES = Path(__file__).resolve().parents[1] / "vla_ros" / "nodes"


def imported_names() -> set[tuple[str, str]]:
    """Modules of rclpy and the names that our nodes take from them."""
    found = set()
    for path in NODES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rclpy":
                found |= {(str(node.module), alias.name) for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rclpy":
                found.add(("rclpy", node.attr))
    return found


class Recorder:
    """Reads names of a source tree, and those that they come from, derive from and return.

    Args:
        root: the folder that holds the package `rclpy`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sources: dict[str, dict[str, Any]] = {}
        self.modules: dict[str, dict[str, Any]] = {}

    def record(self, module: str, name: str) -> None:
        """Records a name, if it is there."""
        value = self._source(module).get(name)
        names = self.modules.setdefault(module, {})
        if value is None or name in names:
            return
        names[name] = value
        if isinstance(value, str) and value.startswith("from "):
            self.record(value.split()[1], value.split()[3])
        elif isinstance(value, str) and value.startswith("is "):
            self.record(module, value.removeprefix("is "))
        for text in _texts(value):
            self.record(module, text.rpartition("-> ")[2])

    def _source(self, module: str) -> dict[str, Any]:
        """All names of a module."""
        if module not in self._sources:
            path = self._root.joinpath(*module.split("."))
            is_package = path.is_dir()
            path = path / "__init__.py" if is_package else path.with_suffix(".py")
            body = ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
            package = module if is_package else module.rpartition(".")[0]
            self._sources[module] = {key: value for node in body for key, value in _entries(node, package)}
        return self._sources[module]


def _texts(value: Any) -> Iterator[str]:
    """What may end in the name of a class."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value.get("bases", ())
        for key, item in value.items():
            if key != "bases":
                yield from _texts(item)


def _entries(node: ast.stmt, package: str) -> Iterator[tuple[str, Any]]:
    """What a statement of a module defines."""
    if isinstance(node, ast.FunctionDef):
        yield node.name, signature(node)
    elif isinstance(node, ast.ClassDef):
        yield node.name, members(node)
    elif isinstance(node, ast.Assign):
        value = node.value.id if isinstance(node.value, ast.Name) else "value"
        yield from ((target.id, f"is {value}") for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, "is value"
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        source = ".".join([*parts, *([node.module] if node.module else [])])
        if source.split(".")[0] == "rclpy":
            yield from ((alias.asname or alias.name, f"from {source} import {alias.name}") for alias in node.names)


def signature(node: ast.FunctionDef) -> str:
    """Arguments of a function, of which only callbacks keep a type: how many arguments they take."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [False] * (len(positional) - len(arguments.defaults)) + [True] * len(arguments.defaults)
    words = [_argument(item, has) for item, has in zip(positional, defaults, strict=True)]
    if arguments.vararg:
        words.append(f"*{arguments.vararg.arg}")
    elif arguments.kwonlyargs:
        words.append("*")
    words += [
        _argument(item, value is not None)
        for item, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    if arguments.kwarg:
        words.append(f"**{arguments.kwarg.arg}")
    return f"({', '.join(words)}) -> {_result(node.returns)}"


def _argument(item: ast.arg, has_default: bool) -> str:
    kind = next((found for found in map(_callback, ast.walk(item.annotation)) if found), "") if item.annotation else ""
    is_optional = kind and "Optional" in ast.unparse(item.annotation)
    kind = f": {kind}{' | None' if is_optional else ''}" if kind else ""
    return f"{item.arg}{kind}{' = ...' if has_default else ''}"


def _callback(node: ast.AST) -> str:
    """`Callable[[Any, ...], Any]` for a callback's type with that many arguments; else empty."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Callable"):
        arguments = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else None
        if isinstance(arguments, ast.List):
            return f"Callable[[{', '.join(['Any'] * len(arguments.elts))}], Any]"
    return ""


def _result(node: ast.expr | None) -> str:
    return node.id if isinstance(node, ast.Name) else str(node.value) if isinstance(node, ast.Constant) else "Any"


def members(node: ast.ClassDef) -> dict[str, Any]:
    """Bases, and what is public of a class: methods with their arguments, the rest by name."""
    found: dict[str, Any] = {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            decorators = {ast.unparse(decorator) for decorator in item.decorator_list}
            if decorators & {"property", "cached_property"}:
                found[item.name] = f"property -> {_result(item.returns)}"
            elif not any("setter" in name for name in decorators):
                prefix = next((f"{kind} " for kind in ("staticmethod", "classmethod") if kind in decorators), "")
                found[item.name] = prefix + signature(item)
            for inner in ast.walk(item):
                if (
                    isinstance(inner, ast.Attribute)
                    and isinstance(inner.ctx, ast.Store)
                    and ast.unparse(inner.value) == "self"
                ):
                    found.setdefault(inner.attr, "value")
        elif isinstance(item, ast.ClassDef):
            found[item.name] = members(item)
        elif isinstance(item, (ast.Assign, ast.AnnAssign)):
            targets = item.targets if isinstance(item, ast.Assign) else [item.target]
            found.update({target.id: "value" for target in targets if isinstance(target, ast.Name)})
    kept = {
        name: value
        for name, value in found.items()
        if not name.startswith("_") or name in ("__init__", "__enter__", "__exit__", "__call__")
    }
    return {"bases": [ast.unparse(base) for base in node.bases], **kept}


def main() -> int:
    root, distribution = Path(sys.argv[1]), sys.argv[2]
    recorder = Recorder(root)
    for module, name in sorted(imported_names()):
        recorder.record(module, name)
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(
        "# What rclpy offers to our nodes, read at its source by scripts/record_rclpy.py for scripts/check_humble.py."
    )
    head = {"distribution": distribution, "commit": done.stdout.strip() or "unknown"}
    print(
        yaml.safe_dump(
            {**head, "modules": {name: recorder.modules[name] for name in sorted(recorder.modules)}},
            sort_keys=False,
            width=10000,
        ),
        end="",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
