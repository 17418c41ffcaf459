"""What the controller's ticks were like over the last second, for /diagnostics."""

from __future__ import annotations

from collections import deque

import numpy as np

from vla_ros.control.cartesian_controller import ControllerReport
from vla_ros.robots.config import RobotConfig
from vla_ros.types import FloatArray, JointCommand


class ControllerFigures:
    """Takes every tick in the loop's thread; is read once a second in another.

    Args:
        rate_hz: ticks per second.
        robot: for its joints' limits.
    """

    def __init__(self, rate_hz: float, robot: RobotConfig) -> None:
        # A joint whose limit is zero stands still.
        self._jerk = np.array([joint.jerk_rad_s3 or np.inf for joint in robot.joints])
        self._dt_s = 1.0 / rate_hz
        self._positions: deque[FloatArray] = deque(maxlen=round(rate_hz) + 3)
        self._report: ControllerReport | None = None
        self._ticks = self._clipped = 0
        self._read = (0, 0)

    def add(self, command: JointCommand, report: ControllerReport) -> None:
        """Takes a tick."""
        self._positions.append(command.positions)
        self._report = report
        self._ticks += 1
        self._clipped += report.is_clipped

    def clear(self) -> None:
        """Forgets the motion: the next begins elsewhere."""
        self._positions.clear()

    def read(self) -> dict[str, object]:
        """Figures by name: of the ticks since the last reading, and of the newest one."""
        report, now = self._report, (self._ticks, self._clipped)
        ticks, clipped = now[0] - self._read[0], now[1] - self._read[1]
        self._read = now
        return {
            "sigma_min": report.sigma_min if report else float("nan"),
            "clip_rate": clipped / ticks if ticks else 0.0,
            "jerk_fraction": self._peak_jerk_fraction(),
            "limits": "; ".join(item.reason for item in report.interventions) if report else "",
        }

    def _peak_jerk_fraction(self) -> float:
        positions = list(self._positions)
        if len(positions) < 4:
            return 0.0
        jerk = np.abs(np.diff(np.array(positions), n=3, axis=0)).max(axis=0) / self._dt_s**3
        return float(np.max(jerk / self._jerk))
