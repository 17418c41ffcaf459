"""Imports every module of vla_ros: what a Python, or a ROS distribution, lacks shows at once.

    .venv-python3.10/bin/python scripts/import_everything.py

Modules whose own optional package isn't installed are told and left out; of the nodes, none may be.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import vla_ros

# They end the process when they are imported.
_PROGRAMS = ("vla_ros.nodes.__main__",)


def main() -> int:
    from vla_ros.errors import MissingDependencyError

    left_out: dict[str, list[str]] = {}
    count = 0
    for module in pkgutil.walk_packages(vla_ros.__path__, "vla_ros."):
        if module.name in _PROGRAMS:
            continue
        try:
            importlib.import_module(module.name)
            count += 1
        except (ImportError, MissingDependencyError) as error:
            missing = str(getattr(error, "name", None) or error).split(".")[0]
            if module.name.startswith("vla_ros.nodes") or missing == "vla_ros":
                raise
            left_out.setdefault(missing, []).append(module.name)
    for missing, names in sorted(left_out.items()):
        print(f"without {missing}: {', '.join(names)}")
    print(f"imported {count} modules with Python {sys.version.split()[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
