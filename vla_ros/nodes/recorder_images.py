"""Images compressed on their way into the bag, as image_transport would: sensor_msgs/CompressedImage."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import cv2
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from vla_ros.errors import SensorError
from vla_ros.nodes import image_messages
from vla_ros.recording.bag_writer import Topic
from vla_ros.recording.topics import COMPRESSED_ENDING, COMPRESSED_IMAGE, IMAGE

Images = Literal["raw", "jpeg", "png"]
_WAITING = 90
_JPEG_QUALITY, _PNG_EFFORT = 95, 1


class ImageCompressor:
    """Hands messages on, images compressed by some threads; the rest, and what it can't read, as it comes.

    Args:
        kind: `jpeg` loses, `png` doesn't.
        sink: called in any thread with topic, time and message.
        threads: that compress.
    """

    def __init__(self, kind: Images, sink: Callable[[Topic, int, bytes], None], threads: int = 2) -> None:
        self._kind, self._sink = kind, sink
        self._pool = ThreadPoolExecutor(threads, "compress")
        self._room = threading.Semaphore(_WAITING)
        self._topics: dict[str, Topic] = {}
        self.dropped: Counter[str] = Counter()
        """Images that came faster than they can be compressed, by topic; since the start."""
        self.problems: dict[str, str] = {}
        """Why images of a topic aren't compressed."""

    def add(self, topic: Topic, stamp_ns: int, data: bytes) -> None:
        """Takes a message."""
        if topic.type != IMAGE:
            self._sink(topic, stamp_ns, data)
        elif self._room.acquire(blocking=False):
            self._pool.submit(self._compress, topic, stamp_ns, data)
        else:
            self.dropped[topic.name] += 1

    def drain(self) -> None:
        """Waits until everything is handed on."""
        for _ in range(_WAITING):
            self._room.acquire()
        self._room.release(_WAITING)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    def _compress(self, topic: Topic, stamp_ns: int, data: bytes) -> None:
        try:
            message = self._encode(deserialize_message(data, Image))
            known = self._topics.setdefault(
                topic.name, Topic(f"{topic.name}{COMPRESSED_ENDING}", COMPRESSED_IMAGE, topic.qos)
            )
            self._sink(known, stamp_ns, serialize_message(message))
        # Never lost for want of an encoder: depth images, for one.
        except (SensorError, cv2.error) as error:
            self.problems[topic.name] = str(error)
            self._sink(topic, stamp_ns, data)
        finally:
            self._room.release()

    def _encode(self, image: Image) -> CompressedImage:
        """Raises SensorError for an encoding that isn't 8 bits of colour or grey."""
        if image.encoding not in ("rgb8", "bgr8", "rgba8", "bgra8", "mono8"):
            raise SensorError(f"encoding {image.encoding!r} is recorded raw")
        bgr = image_messages.from_image(image)[:, :, ::-1]
        if self._kind == "jpeg":
            _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        else:
            _, encoded = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_EFFORT])
        message = CompressedImage(header=image.header, format=f"rgb8; {self._kind} compressed bgr8")
        message.data = encoded.tobytes()
        return message
