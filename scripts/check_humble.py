"""Type-checks the nodes against the rclpy of ROS 2 Humble and Python 3.10, on any machine with mypy.

    .venv/bin/python scripts/check_humble.py [FILE...]

Humble's rclpy is old, has few types and can't be installed by pip, so stubs are made of what was recorded of it
(test/data/rclpy_humble.yaml): its names, arguments and what comes back. A name that Humble lacks, an argument that it
doesn't take and a callback with an argument too many are errors.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "test" / "data" / "rclpy_humble.yaml"
CACHE = ROOT / ".mypy_cache" / "humble"
SETTINGS = """\
[mypy]
python_version = 3.10
check_untyped_defs = True
ignore_missing_imports = True
# Other packages are checked by `mypy` alone.
follow_imports = silent
disable_error_code = misc, type-arg
[mypy-torch.*,mujoco.*,transformers.*,matplotlib.*]
follow_imports = skip
"""
HEAD = "from collections.abc import Callable\nfrom enum import Enum, IntEnum, IntFlag\nfrom typing import Any\n"
ENUMS = ("Enum", "IntEnum", "IntFlag")


def write_stubs(record: dict[str, Any], folder: Path) -> None:
    """Writes stubs of a record of scripts/record_rclpy.py."""
    modules = record["modules"]
    for module, names in modules.items():
        is_package = any(other.startswith(f"{module}.") for other in modules)
        path = folder.joinpath(*module.split("."))
        path = path / "__init__.pyi" if is_package else path.with_suffix(".pyi")
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.pyi").touch()
        known = _known(modules)
        lines = [line for name, value in names.items() for line in _stub(name, value, known)]
        needed = {word for word in known if word not in names and any(_mentions(line, word) for line in lines)}
        imports = [f"from {known[word]} import {word}" for word in sorted(needed)]
        path.write_text("\n".join([HEAD, *imports, *lines, ""]), encoding="utf-8")


def _known(modules: dict[str, Any]) -> dict[str, str]:
    """The module that each recorded class is defined in."""
    return {
        name: module for module, names in modules.items() for name, value in names.items() if isinstance(value, dict)
    }


def _mentions(line: str, word: str) -> bool:
    return line.endswith((f"-> {word}: ...", f": {word}")) or (
        line.startswith("class ") and word in line[6:].partition("(")[2]
    )


def _stub(name: str, value: Any, known: dict[str, str]) -> Iterator[str]:
    """The lines that declare a recorded name."""
    if isinstance(value, dict):
        bases = [base for base in value["bases"] if base in known or base in ENUMS]
        is_enum = any(base in ENUMS for base in bases)
        # What isn't recorded may have any attribute.
        bases += ["Any"] if len(bases) < len(value["bases"]) and not is_enum else []
        yield f"class {name}({', '.join(bases)}):" if bases else f"class {name}:"
        yield "    ..."
        for key, item in value.items():
            if key != "bases" and not (is_enum and item != "value"):
                yield from (f"    {line}" for line in _stub(key, item, known))
    elif value.startswith("from "):
        _, source, _, original = value.split()
        yield f"from {source} import {original} as {name}"
    elif value in ("value", "is value"):
        yield f"{name}: Any"
    elif value.startswith("is "):
        yield f"{name} = {value.removeprefix('is ')}"
    elif value.startswith("property"):
        yield "@property"
        yield f"def {name}(self) -> {_result(value, known)}: ..."
    else:
        kind, _, rest = value.partition("(")
        if kind:
            yield f"@{kind.strip()}"
        yield f"def {name}({rest.rpartition('->')[0]}-> {_result(value, known)}: ..."


def _result(value: str, known: dict[str, str]) -> str:
    result = value.rpartition("-> ")[2]
    return result if result in known or result in ("None", "bool", "int", "str", "float") else "Any"


def foreign_imports(path: Path, modules: dict[str, Any]) -> Iterator[str]:
    """Imports of what wasn't recorded: mypy would find another rclpy's modules where one is installed."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rclpy":
            for alias in node.names:
                if alias.name not in modules.get(str(node.module), {}):
                    yield f"{path}:{node.lineno}: error: {alias.name} of {node.module} isn't recorded of Humble"


def main() -> int:
    record = yaml.safe_load(RECORD.read_text(encoding="utf-8"))
    shutil.rmtree(CACHE / "stubs", ignore_errors=True)
    write_stubs(record, CACHE / "stubs")
    files = [Path(word) for word in sys.argv[1:]] or sorted((ROOT / "vla_ros" / "nodes").glob("*.py"))
    foreign = [line for path in files for line in foreign_imports(path, record["modules"])]
    print("\n".join(foreign), end="\n" if foreign else "", flush=True)
    (CACHE / "mypy.ini").write_text(SETTINGS, encoding="utf-8")
    # What is remembered of a file counts for its name, wherever that lies.
    options = [
        "--config-file",
        str(CACHE / "mypy.ini"),
        "--cache-dir",
        os.devnull if sys.argv[1:] else str(CACHE / "cache"),
    ]
    command = [sys.executable, "-m", "mypy", *options, *(sys.argv[1:] or ["-p", "vla_ros.nodes"])]
    done = subprocess.run(command, cwd=ROOT, env={"MYPYPATH": str(CACHE / "stubs")}, check=False)
    return done.returncode or int(bool(foreign))


if __name__ == "__main__":
    sys.exit(main())
