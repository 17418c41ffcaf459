"""An episode that was read from a LeRobot dataset: its videos can go into another one as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vla_ros.recording.dataset import EpisodeFrames
from vla_ros.recording.statistics import Statistics
from vla_ros.recording.videos import VideoPart


@dataclass(frozen=True)
class LeRobotFrames(EpisodeFrames):
    """See `EpisodeFrames`. Who gives it other images leaves `videos` empty, or these are what is copied.

    Attributes:
        videos: by image column, where its frames lie; columns kept as images have none.
        image_statistics: by image column, what the dataset says of them; may be missing.
    """

    videos: Mapping[str, VideoPart] = field(default_factory=dict)
    image_statistics: Mapping[str, Statistics] = field(default_factory=dict)
