"""The images of a piece of an episode's frames, streamed out of the bag in one pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vla_ros.errors import RecordingError
from vla_ros.recording.dataset import IMAGES, ImageColumn, Schema
from vla_ros.recording.grid import NOBODY, Step, image_indices
from vla_ros.recording.recorded import Finding, RecordedEpisode
from vla_ros.types import ImageArray


class FrameImages:
    """Which image is in which frames, and reading them.

    Args:
        episode: holds them.
        schema: names the columns and their sizes.
        piece: the frames.

    Attributes:
        findings: images that are absent, and may be.
    """

    def __init__(self, episode: RecordedEpisode, schema: Schema, piece: tuple[Step, ...]) -> None:
        self._episode, self._columns = episode, schema.images
        self._indices = {
            column.name: image_indices(piece, column.name.removeprefix(IMAGES)) for column in schema.images
        }
        self.findings = [
            Finding(
                "absent",
                name,
                f"{count} of {len(indices)} frames have a black image, as the contract allows",
                None,
                count,
            )
            for name, indices in self._indices.items()
            if (count := int(np.count_nonzero(indices == NOBODY)))
        ]

    def read(self) -> Iterator[tuple[str, int, ImageArray]]:
        """(column, frame, image): each column's frames in order, the columns as they come out of the bag.

        Raises:
            RecordingError: for an image that can't be decoded or is of another size than the first.
        """
        writers = [_Writer(column, self._indices[column.name].tolist()) for column in self._columns]
        wanted = {
            camera: np.unique(np.concatenate([indices[indices != NOBODY] for indices in self._of(camera)]))
            for camera in {column.camera for column in self._columns}
            if camera in self._episode.cameras
        }
        for writer in writers:
            yield from writer.fill()
        for camera, index, image in self._episode.read_images(wanted):
            for writer in writers:
                if writer.column.camera == camera:
                    yield from writer.write(index, image, self._episode.info.name)

    def _of(self, camera: str) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
        return [self._indices[column.name] for column in self._columns if column.camera == camera]


class _Writer:
    """Where one column is."""

    def __init__(self, column: ImageColumn, indices: list[int]) -> None:
        self.column, self._indices, self._frame = column, indices, 0

    def write(self, index: int, image: ImageArray, episode: str) -> Iterator[tuple[str, int, ImageArray]]:
        """All frames that show this image."""
        if image.shape != (self.column.height, self.column.width, 3):
            raise RecordingError(
                f"{episode}: image {index} of camera {self.column.camera} is {image.shape[1]}x{image.shape[0]}, the "
                f"first was {self.column.width}x{self.column.height}; did its driver change resolution?"
            )
        while self._frame < len(self._indices) and self._indices[self._frame] == index:
            yield self.column.name, self._frame, image
            self._frame += 1
        yield from self.fill()

    def fill(self) -> Iterator[tuple[str, int, ImageArray]]:
        """Black for those that are absent next."""
        while self._frame < len(self._indices) and self._indices[self._frame] == NOBODY:
            yield self.column.name, self._frame, np.zeros((self.column.height, self.column.width, 3), dtype=np.uint8)
            self._frame += 1
