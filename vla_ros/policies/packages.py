"""What a policy imports only when it is made may not be installed: said with the command that mends it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vla_ros.errors import MissingDependencyError


@contextmanager
def packages_for(what: str) -> Iterator[None]:
    """Turns an import that finds no package, anywhere in the block, into an error for the user.

    Raises:
        MissingDependencyError: naming the package, what it is needed for, and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "vla_ros"):
            raise  # A fault of ours, which no installation mends.
        mend = f"{shlex.quote(sys.executable)} -m pip install {package}"
        raise MissingDependencyError(package, what, mend) from error
