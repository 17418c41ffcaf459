"""What a simulator tells in a bag of where everything truly is."""

from __future__ import annotations

import numpy as np

from vla_ros.actions.wire import from_transform, to_ns
from vla_ros.recording.bag import Bag
from vla_ros.recording.recorded import Series
from vla_ros.recording.streams import Heard
from vla_ros.robots.config import RobotConfig
from vla_ros.types import FloatArray


def read_truth(bag: Bag, heard: Heard | None, robot: RobotConfig) -> dict[str, Series]:
    """(n, 4, 4) poses in base by name, out of tf2_msgs/TFMessage; edges from other frames aren't read.

    Args:
        bag: open.
        heard: the messages, None for none.
        robot: whose base is meant.
    """
    told: dict[str, dict[int, FloatArray]] = {}
    for data in heard.data if heard is not None else ():
        for edge in bag.decode(heard.topic if heard else "", data).transforms:
            try:
                T = from_transform(edge.transform)
            except ValueError:
                continue
            if edge.header.frame_id == robot.base_frame and np.isfinite(T).all():
                told.setdefault(edge.child_frame_id, {})[to_ns(edge.header.stamp)] = T
    return {
        name: Series(np.array(sorted(poses), dtype=np.int64), np.stack([poses[stamp] for stamp in sorted(poses)]))
        for name, poses in told.items()
    }
