"""Installs vla_ros as a ROS package: what ament and `ros2` look for lies where they look for it.

Dependencies and extras are in pyproject.toml. Here is what colcon needs: it runs this file with the system's
setuptools, which before 61 (Ubuntu 22.04 has 59.6) doesn't read pyproject.toml, and for `--symlink-install` in a folder
without that file. `colcon test` runs pytest where an extra `test` names it, and else unittest, which finds nothing.
"""

import re
from pathlib import Path

import setuptools
from setuptools import find_packages, setup

NAME = "vla_ros"
READS_NO_PYPROJECT = int(setuptools.__version__.split(".")[0]) < 61
SHARE_FOLDERS = ("config", "launch", "urdf")


def version():
    """The version in the package, read without importing it or what it needs."""
    return re.search(r'^__version__ = "(.+)"$', Path(NAME, "__init__.py").read_text(), re.MULTILINE).group(1)


def data_files():
    """Pairs of a folder under the prefix and the files that go there."""
    share = Path("share", NAME)
    files = {
        Path("share/ament_index/resource_index/packages"): [Path("resource", NAME)],
        share: [Path("package.xml")],
        Path("lib", NAME): [path for path in Path("scripts/executables").iterdir() if path.name != "node"],
    }
    for folder in SHARE_FOLDERS:
        for path in Path(folder).rglob("*"):
            if path.is_file():
                files.setdefault(share / path.parent, []).append(path)
    return [(str(target), sorted(map(str, paths))) for target, paths in sorted(files.items())]


setup(
    name=NAME,
    version=version(),
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    entry_points={"console_scripts": ["vla-ros = vla_ros.cli:main"]},
    data_files=data_files(),
    extras_require={"test": ["pytest"]} if READS_NO_PYPROJECT else {},
    zip_safe=False,
)
