"""A hand leads the tool from the moment of clutching: where the tool is to be, of where the hand is since then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_ros.geometry import rotations, se3
from vla_ros.teleop.config import PoseConfig
from vla_ros.types import FloatArray


@dataclass(frozen=True)
class Clutch:
    """What was when the hand took hold.

    Attributes:
        T_track_hand: (4, 4) of the hand, in the tracker's axes.
        T_base_tcp: (4, 4) target of the tool.
        R_base_track: (3, 3) from the tracker's axes to base.
    """

    T_track_hand: FloatArray
    T_base_tcp: FloatArray
    R_base_track: FloatArray

    def wanted(self, T_track_hand: FloatArray, config: PoseConfig) -> FloatArray:
        """(4, 4) pose of the tcp in base that the hand means now.

        The hand's way and turn since clutching, both in the tracker's axes, are brought into base axes and scaled; the
        tool turns about its own point, wherever the hand is.
        """
        delta = se3.relative_base(self.T_track_hand, T_track_hand)
        way = self.R_base_track @ delta[:3, 3]
        turn = self.R_base_track @ rotations.matrix_to_rotvec(delta[:3, :3])
        scaled = se3.make_pose(
            np.asarray(config.scale * way), rotations.rotvec_to_matrix(np.asarray(config.rotation_scale * turn))
        )
        return se3.compose_base(self.T_base_tcp, scaled)


def pursuit(T_from: FloatArray, T_wanted: FloatArray, gain_per_s: float, rates: tuple[float, float]) -> FloatArray:
    """(6,) velocity in base axes that leads to a wanted pose, and can still be braked before it.

    Args:
        T_from: (4, 4).
        T_wanted: (4, 4).
        gain_per_s: near the pose the velocity is this times what is left.
        rates: accelerations, m/s^2 and rad/s^2, by which it is braked.
    """
    error = se3.pose_error(T_from, T_wanted)
    out = np.empty(6)
    for rows, rate in zip((slice(0, 3), slice(3, 6)), rates, strict=True):
        left = float(np.linalg.norm(error[rows]))
        # From far the speed of a uniform braking, half of the rate kept back for the ramps of the acceleration.
        out[rows] = error[rows] * min(gain_per_s, np.sqrt(rate / left) if left > 0.0 else 0.0)
    return out
