"""A figure of matplotlib that becomes a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vla_ros.errors import MissingDependencyError
from vla_ros.files import whole_file


@contextmanager
def figure_file(path: Path, width_in: float, height_in: float, **options: Any) -> Iterator[Any]:
    """Gives a `matplotlib.figure.Figure`, and writes it when the block ends without an error.

    The same drawing makes the same file.

    Args:
        path: of the picture; its ending, .png or .svg, says what it is.
        width_in: of the figure, inches.
        height_in: likewise.
        options: others of `Figure`.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "plots", "python -m pip install matplotlib") from error
    settings: dict[str, Any] = {"dpi": 110, **options}
    figure = Figure(figsize=(width_in, height_in), **settings)
    yield figure
    kind = path.suffix.removeprefix(".")
    # An SVG has a date and random names otherwise.
    with whole_file(path) as partial, rc_context({"svg.hashsalt": "vla_ros"}):
        figure.savefig(partial, format=kind, metadata={"Date": None} if kind == "svg" else None)
