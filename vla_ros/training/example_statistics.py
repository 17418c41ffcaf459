"""Statistics of examples, safe to normalise with: after the relative transform, over the steps that count.

An entry that hardly varies (the turns of a tool that always points down) would make noise large: its spread counts as
at least `LEAST_SPREAD`, in metres, rad and openings whatever the contract's units are. An entry that never varies keeps
its spread of 0, with which `Normaliser` gives 0 and its one value back. Quantiles that lie closer together than four
such spreads give way to minimum and maximum, so that a gripper that is open in 99 of 100 steps still closes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla_ros.actions.units import units
from vla_ros.contract import Contract, action_layout, state_layout
from vla_ros.policies.normalisation import Statistics
from vla_ros.policies.statistics_file import CheckpointStatistics
from vla_ros.types import FloatArray

LEAST_SPREAD = {"position_m": 0.001, "turn_rad": 0.005, "opening": 0.01}
"""Standard deviation that an entry has at least; entries of matrices and quaternions are as large as small angles."""
# From the lower to the upper bound, in standard deviations.
_RANGE = 4.0


def example_statistics(
    states: FloatArray, actions: FloatArray, contract: Contract, joints: int, dataset: str
) -> CheckpointStatistics:
    """Statistics as they go into a checkpoint.

    Args:
        states: (n, s) state vectors, not normalised; s may be 0.
        actions: (m, d) every step that counts, in the contract's form.
        contract: of both.
        joints: of the arm.
        dataset: its name, for people.
    """
    state = None
    if states.shape[1]:
        state = with_least_spread(Statistics.from_samples(states), least_state_spread(contract, joints))
    action = with_least_spread(Statistics.from_samples(actions), least_action_spread(contract, joints))
    return CheckpointStatistics(state, action, dataset, contract.interface_hash)


def with_least_spread(statistics: Statistics, least: FloatArray) -> Statistics:
    """The same with every entry that varies at all spread at least so much.

    Args:
        statistics: all of them known.
        least: (d,) standard deviation.
    """
    minimum, maximum, std = statistics.minimum, statistics.maximum, statistics.std
    q01, q99 = statistics.q01, statistics.q99
    if minimum is None or maximum is None or std is None or q01 is None or q99 is None:
        return statistics
    varies = maximum > minimum
    is_narrow = varies & (q99 - q01 < _RANGE * least)
    q01, q99 = np.where(is_narrow, minimum, q01), np.where(is_narrow, maximum, q99)
    minimum, maximum = _widened(minimum, maximum, np.where(varies, _RANGE * least, 0.0))
    q01, q99 = _widened(q01, q99, np.where(varies, _RANGE * least, 0.0))
    std = np.where(varies, np.maximum(std, least), std)
    return replace(statistics, std=std, minimum=minimum, maximum=maximum, q01=q01, q99=q99)


def least_state_spread(contract: Contract, joints: int) -> FloatArray:
    """(s,) in the state vector's units."""
    parts = []
    layout = state_layout(contract.observation, joints)
    for item in contract.observation.state:
        width = layout[item.kind].stop - layout[item.kind].start
        if item.kind == "tcp_pose":
            parts.append(np.array([LEAST_SPREAD["position_m"]] * 3 + [LEAST_SPREAD["turn_rad"]] * (width - 3)))
        elif item.kind.startswith("gripper"):
            parts.append(np.array([LEAST_SPREAD["opening"] * abs(high - low) for low, high in item.gripper_entries]))
        else:
            parts.append(np.full(width, LEAST_SPREAD["turn_rad"]))
    return np.concatenate([np.zeros(0), *parts])


def least_action_spread(contract: Contract, joints: int) -> FloatArray:
    """(d,) in the action's units."""
    spec, layout = contract.action, action_layout(contract.action, joints)
    least = np.zeros(max(part.stop for part in layout.values()))
    if spec.space == "joint":
        least[layout["joints"]] = LEAST_SPREAD["turn_rad"] / np.abs(units(spec, joints))
    else:
        least[layout["position"]] = LEAST_SPREAD["position_m"]
        least[layout["rotation"]] = LEAST_SPREAD["turn_rad"]
        entries = 6 if spec.has_scaled_rotation else 3
        least[:entries] /= np.abs(units(spec, entries))
    if spec.has_gripper:
        closed, opened = spec.gripper_ends
        least[-1] = LEAST_SPREAD["opening"] * abs(opened - closed)
    return least


def _widened(lower: FloatArray, upper: FloatArray, least: FloatArray) -> tuple[FloatArray, FloatArray]:
    missing = 0.5 * np.maximum(0.0, least - (upper - lower))
    return lower - missing, upper + missing
