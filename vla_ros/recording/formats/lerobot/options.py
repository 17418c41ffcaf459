"""What may be chosen when a LeRobot dataset is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vla_ros.errors import DatasetError, UnknownNameError
from vla_ros.recording.encoding import VideoSettings
from vla_ros.recording.formats.schema import read_options


@dataclass(frozen=True)
class WriteOptions:
    """See `vla_ros.recording.encoding.VideoSettings` for the first four.

    Attributes:
        codec: of the videos.
        preset: of the encoder.
        crf: quality.
        group: frames from one keyframe to the next.
        data_file_mb: a parquet file ends before it is larger; None for LeRobot's limit.
        video_file_mb: likewise, a video.
        chunk_files: files in a folder.
    """

    codec: str | None = None
    preset: str | None = None
    crf: int | None = None
    group: int | None = None
    data_file_mb: float | None = None
    video_file_mb: float | None = None
    chunk_files: int | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> WriteOptions:
        """From the options of `create`.

        Raises:
            DatasetError: for one that isn't known.
        """
        found = read_options(cls, options, "lerobot")
        try:
            _ = found.video  # Refused now, and not with the first episode.
        except UnknownNameError as error:
            raise DatasetError(str(error)) from error
        for name in ("data_file_mb", "video_file_mb", "chunk_files"):
            value = getattr(found, name)
            if value is not None and not value > 0:
                raise DatasetError(f"option {name} of lerobot is {value}, it has to be positive")
        return found

    @property
    def is_video_chosen(self) -> bool:
        """Whether videos have to be encoded as said, and may not be copied as they are."""
        return bool(self._chosen_video)

    @property
    def video(self) -> VideoSettings:
        """For the encoder."""
        return VideoSettings(**self._chosen_video)

    @property
    def _chosen_video(self) -> dict[str, Any]:
        chosen = {name: getattr(self, name) for name in ("codec", "preset", "crf", "group")}
        return {name: value for name, value in chosen.items() if value is not None}
