"""Rig and contract (docs/design.md, section 4): what a robot cell has, and what a policy needs and means.

Both are YAML files read into frozen types. `interface_hash` names what a policy observes and does, and nothing else:
two contracts with the same hash are interchangeable for a checkpoint.
"""

from vla_ros.contract.action import ActionSpec, action_layout, action_width
from vla_ros.contract.canonical import canonical_hash
from vla_ros.contract.contract import (
    Contract,
    describe,
    find_differences,
    find_mismatches,
    load_contract,
    save_contract,
)
from vla_ros.contract.forms import ROTATION_WIDTH, RotationForm
from vla_ros.contract.normalisation import Normalisation, NormalisationSpec
from vla_ros.contract.observation import (
    WHOLE,
    ImageSpec,
    ObservationSpec,
    StateItem,
    item_width,
    state_layout,
    state_width,
)
from vla_ros.contract.rig import CameraMount, CameraSource, Rig, RigCamera, load_rig

__all__ = [
    "ROTATION_WIDTH",
    "WHOLE",
    "ActionSpec",
    "CameraMount",
    "CameraSource",
    "Contract",
    "ImageSpec",
    "Normalisation",
    "NormalisationSpec",
    "ObservationSpec",
    "Rig",
    "RigCamera",
    "RotationForm",
    "StateItem",
    "action_layout",
    "action_width",
    "canonical_hash",
    "describe",
    "find_differences",
    "find_mismatches",
    "item_width",
    "load_contract",
    "load_rig",
    "save_contract",
    "state_layout",
    "state_width",
]
