"""Images out of a bag: indexed by their stamps in one pass, decoded in another, as many of them as are asked for."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import RecordingError, SensorError
from vla_ros.observation.decoding import decode_compressed, decode_image
from vla_ros.recording.bag import Bag
from vla_ros.recording.recorded import StampArray
from vla_ros.types import ImageArray


def header_stamp_ns(data: bytes) -> int:
    """Stamp of a message that begins with a header, without reading the rest."""
    sec, nanosec = struct.unpack_from("<iI" if data[1] else ">iI", data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


@dataclass
class ImageIndex:
    """The images of one topic, as they come in the bag.

    Attributes:
        topic: in the bag.
        stamps_ns: of the messages, in the bag's order.
        received_ns: likewise.
        first: the first message.
        places: index of an image by stamp -> its place in the bag's order; filled when all are known.
    """

    topic: str
    stamps_ns: list[int] = field(default_factory=list)
    received_ns: list[int] = field(default_factory=list)
    first: bytes = b""
    places: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

    def add(self, received_ns: int, data: bytes) -> None:
        """Takes the next message."""
        if not self.stamps_ns:
            self.first = data
        self.stamps_ns.append(header_stamp_ns(data))
        self.received_ns.append(received_ns)


class BagImages:
    """Reads the images of a bag, any number of times.

    Args:
        path: the bag.
        indices: by camera; complete.
    """

    def __init__(self, path: Path, indices: Mapping[str, ImageIndex]) -> None:
        self._path, self._indices = path, dict(indices)

    def read(self, wanted: Mapping[str, StampArray]) -> Iterator[tuple[str, int, ImageArray]]:
        """(camera, index, image) in one pass over the bag, each camera's by rising index.

        Args:
            wanted: for each camera, indices of its images by stamp, rising.

        Raises:
            RecordingError: for an image that can't be decoded, or a bag that is damaged.
        """
        left = {name: _Left(self._indices[name], indices) for name, indices in wanted.items() if len(indices)}
        by_topic = {self._indices[name].topic: name for name in left}
        if not left:
            return
        received = [stamp for name in left for stamp in left[name].received_ns]
        begin, end = min(received), max(received) + 1
        with Bag(self._path) as bag:
            for each in left.values():
                each.leave_out(begin, end)
            for topic, _, data in bag.raw(by_topic, begin, end):
                name = by_topic[topic]
                index = left[name].next_index()
                if index is not None:
                    left[name].ready[index] = decode(bag, topic, data)
                    yield from ((name, *image) for image in left[name].take())
        missing = sum(len(each.places) for each in left.values())
        if missing:
            raise RecordingError(f"{self._path}: {missing} images that were there when it was indexed are gone")


class _Left:
    """What of a camera is still to come: places in the bag, and images that wait for an earlier one."""

    def __init__(self, index: ImageIndex, wanted: StampArray) -> None:
        places = index.places[wanted]
        self._all_received_ns = np.array(index.received_ns, dtype=np.int64)
        self.received_ns = self._all_received_ns[places].tolist()
        self.places = dict(zip(places.tolist(), wanted.tolist(), strict=True))
        self._count = 0
        self.ready: dict[int, ImageArray] = {}
        self._order = iter(wanted.tolist())
        self._next: int | None = next(self._order, None)

    def leave_out(self, begin_ns: int, end_ns: int) -> None:
        """Counts places without what was received before or after."""
        is_in = (self._all_received_ns >= begin_ns) & (self._all_received_ns < end_ns)
        ranks = np.cumsum(is_in) - 1
        self.places = {int(ranks[place]): index for place, index in self.places.items()}

    def next_index(self) -> int | None:
        """Index of the image at the next place, None where nobody wants it."""
        self._count += 1
        return self.places.pop(self._count - 1, None)

    def take(self) -> Iterator[tuple[int, ImageArray]]:
        while self._next is not None and self._next in self.ready:
            index, self._next = self._next, next(self._order, None)
            yield index, self.ready.pop(index)


def decode(bag: Bag, topic: str, data: bytes) -> ImageArray:
    """(height, width, 3) uint8 rgb out of a sensor_msgs/Image or CompressedImage.

    Raises:
        RecordingError: if that can't be.
    """
    message = bag.decode(topic, memoryview(data))
    where = f"{bag.path}: image on {topic} at {header_stamp_ns(data)} ns"
    try:
        if hasattr(message, "format"):
            return decode_compressed(message.data, where)
        return decode_image(message.data, message.height, message.width, message.step, message.encoding, where)
    except SensorError as error:
        raise RecordingError(str(error)) from error
