"""`NAME=VALUE` as it is given on the command line: options of dataset formats, and topics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from vla_ros.errors import DatasetError


def format_options(words: Sequence[str], option: str = "--option") -> dict[str, Any]:
    """`NAME=VALUE` words as a mapping; the format says which names it knows.

    Args:
        words: as they were given.
        option: with which, for errors.

    Raises:
        DatasetError: for a word of another form.
    """
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not (name and sign and value):
            raise DatasetError(f"{option} {word!r}: write NAME=VALUE")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise DatasetError(f"{option} {word!r}: the value can't be read ({error})") from error
    return found
