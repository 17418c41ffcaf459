"""What an observation was made of, as JSON: the words of `policies/<policy>/observed`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla_ros.errors import RecordingError
from vla_ros.types import ObservedStamps


def observed_to_json(made_of: ObservedStamps) -> dict[str, Any]:
    """Plain values; numbers come back from JSON as they were."""
    return {
        "stamp_ns": made_of.stamp_ns,
        "images": dict(made_of.images),
        "states": [list(state) for state in made_of.states],
        "commanded_opening": made_of.commanded_opening,
        "history": [observed_to_json(each) for each in made_of.history],
    }


def observed_from_json(values: Mapping[str, Any]) -> ObservedStamps:
    """What `observed_to_json` wrote; other keys are left alone.

    Raises:
        RecordingError: if it isn't that.
    """
    try:
        return ObservedStamps(
            int(values["stamp_ns"]),
            {str(name): None if stamp is None else int(stamp) for name, stamp in values["images"].items()},
            tuple((int(stamp), None if opening is None else float(opening)) for stamp, opening in values["states"]),
            None if values["commanded_opening"] is None else float(values["commanded_opening"]),
            tuple(observed_from_json(each) for each in values["history"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(f"an `observed` message isn't understood ({type(error).__name__}: {error})") from error
