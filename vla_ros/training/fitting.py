"""Whether a dataset holds what examples of a contract are made of, and from which columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vla_ros.contract import Contract, StateItem, action_width, find_differences, item_width, state_width
from vla_ros.errors import ContractError, DatasetError
from vla_ros.recording import dataset as d
from vla_ros.recording.dataset import ImageColumn, Schema

# Columns beside the state vector from which an item of it can be made.
MEASURED = {"tcp_pose": d.TCP_POSE, "joint_positions": d.JOINT_POSITIONS}
_PERIOD_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Fit:
    """A dataset under a contract.

    Attributes:
        contract: under which examples are made.
        own: under which the dataset was made; None for a public one, whose actions and state are in `contract`'s form.
        joints: of the arm, 0 where nobody needs to know.
        images: the contract's image -> the dataset's column; None for an absent one that may be.
    """

    contract: Contract
    own: Contract | None
    joints: int
    images: Mapping[str, ImageColumn | None] = field(default_factory=dict)

    @property
    def shift(self) -> int:
        """Row of a chunk's first step, counted from the frame's own.

        Our actions are the targets a period after the frame's stamp; those of others are what a policy says at the
        frame.
        """
        return 0 if self.own is None else self.contract.action.first_action_offset_steps - 1


def fit_dataset(schema: Schema, contract: Contract, where: str, columns: Mapping[str, str] | None = None) -> Fit:
    """Finds the columns for a contract.

    Args:
        schema: of the dataset.
        contract: of the examples.
        where: the dataset, for errors.
        columns: the contract's image -> the dataset's image column, where neither name nor camera tells.

    Raises:
        ContractError: with every line in which they don't fit.
        DatasetError: if there are no actions.
    """
    if schema.column(d.ACTION) is None:
        raise DatasetError(f"{where} has no column {d.ACTION!r}; there is nothing to learn from")
    joints = _joints(schema, contract)
    images, wrong = _find_images(schema, contract, columns or {})
    period_s = contract.action.period_s
    # RLDS doesn't know frames a second.
    if schema.fps > 0.0 and not math.isclose(1.0 / schema.fps, period_s, rel_tol=_PERIOD_TOLERANCE):
        wrong.append(f"action.period_s: a frame every {1.0 / schema.fps:.6g} s in the dataset != {period_s:.6g}")
    if contract.observation.history_steps != 1:
        wrong.append(f"observation.history_steps: {contract.observation.history_steps}, examples are of one frame (1)")
    if schema.contract is None:
        wrong += _find_foreign(schema, contract, joints)
    else:
        wrong += _find_own(schema, schema.contract, contract)
    if wrong:
        lines = "\n  ".join(wrong)
        raise ContractError(f"{where} can't be learned from under contract {contract.name}:\n  {lines}")
    return Fit(contract, schema.contract, joints, images)


def common_contract(datasets: Sequence[tuple[str, Schema]]) -> Contract:
    """The contract under which all datasets, each with its place, were made.

    Raises:
        ContractError: if one doesn't say, or they differ.
    """
    found: tuple[str, Contract] | None = None
    for where, schema in datasets:
        if schema.contract is None:
            problem = f"{where} doesn't say what its actions mean"
            raise ContractError(f"{problem}; name a contract that does (`contract`, or --set contract=NAME)")
        found = found or (where, schema.contract)
        if found[1].interface_hash != schema.contract.interface_hash:
            lines = "\n  ".join(find_differences(found[1], schema.contract))
            problem = f"{found[0]} and {where} are of different contracts"
            raise ContractError(f"{problem}; name one for both (`contract`, or --set contract=NAME):\n  {lines}")
    if found is None:
        raise ContractError("no dataset, no contract")
    return found[1]


def _find_own(schema: Schema, own: Contract, contract: Contract) -> list[str]:
    """What our columns don't have: they hold absolute targets and raw images, so that most contracts can be had."""
    a, b, wrong = own.action, contract.action, []
    fixed = {"space": (a.space, b.space), "label": (a.label, b.label)}
    wrong += [f"action.{key}: {x} in the dataset != {y}" for key, (x, y) in fixed.items() if x != y]
    if b.has_gripper and not a.has_gripper:
        wrong.append(f"action.gripper: none in the dataset != {b.gripper}")
    x, y = (each.observation.images[each.observation.reference].camera for each in (own, contract))
    if x != y:
        wrong.append(f"observation.reference: frames are of camera {x}'s exposures != {y}'s")
    wrong += [
        f"observation.state: {item.kind} is neither in the dataset's state ({_kinds(own)}) nor in a column of its own"
        for item in contract.observation.state
        if not can_make(item, schema, own)
    ]
    if wrong:
        known = set(find_differences(own, contract))
        wrong.append(f"(the dataset's contract, {own.name}, differs in {len(known)} lines)")
    return wrong


def _find_foreign(schema: Schema, contract: Contract, joints: int) -> list[str]:
    wrong = []
    widths = {d.ACTION: action_width(contract.action, joints)}
    if contract.observation.state:
        widths[d.STATE] = state_width(contract.observation, joints)
    for name, width in widths.items():
        column = schema.column(name)
        if column is None:
            wrong.append(f"{name}: there is no such column, the contract has {width} numbers")
        elif math.prod(column.shape) != width:
            wrong.append(f"{name}: {math.prod(column.shape)} numbers in the dataset != {width}")
    return wrong


def can_make(item: StateItem, schema: Schema, own: Contract) -> bool:
    """Whether an item of the state vector is in a dataset of ours, in whatever form."""
    if item.kind in MEASURED and schema.column(MEASURED[item.kind]) is not None:
        return True
    same = own_item(item, own)
    if same is None or schema.column(d.STATE) is None:
        return False
    return same == item or item.kind != "gripper" or any(x != y for x, y in same.gripper_entries)


def own_item(item: StateItem, own: Contract) -> StateItem | None:
    """The item of that kind in another contract."""
    return next((other for other in own.observation.state if other.kind == item.kind), None)


def _find_images(
    schema: Schema, contract: Contract, columns: Mapping[str, str]
) -> tuple[dict[str, ImageColumn | None], list[str]]:
    found: dict[str, ImageColumn | None] = {}
    images = contract.observation.images
    known = ", ".join(images)
    wrong = [
        f"columns.{name}: the contract has no such image; its images are {known}" for name in {*columns} - {*images}
    ]
    for name, spec in images.items():
        wanted = columns.get(name)
        if wanted is not None:
            matches = [image for image in schema.images if wanted in (image.name, image.name.removeprefix(d.IMAGES))]
        else:
            matches = [image for image in schema.images if image.camera and image.camera == spec.camera]
            matches = matches or [image for image in schema.images if image.name == d.IMAGES + name]
        found[name] = matches[0] if matches else None
        if not matches and (spec.if_absent == "refuse" or wanted is not None):
            known = ", ".join(f"{image.name} (camera {image.camera or 'not said'})" for image in schema.images)
            missing = f"camera {spec.camera} isn't" if wanted is None else f"column {wanted!r} isn't"
            mend = f"; name one, as in --set columns.{name}=front" if known else ""
            wrong.append(f"observation.images.{name}: {missing} there; images are {known or 'none'}{mend}")
    return found, wrong


def _joints(schema: Schema, contract: Contract) -> int:
    """Of the arm, by the columns; 0 where nothing says so and nothing needs to know."""
    measured = schema.column(d.JOINT_POSITIONS)
    if measured is not None:
        return math.prod(measured.shape)
    if contract.action.space == "joint":
        column = schema.column(d.ACTION)
        return math.prod(column.shape) - contract.action.has_gripper if column is not None else 0
    state, count = schema.column(d.STATE), 0
    for item in contract.observation.state:
        count += item_width(item, 1) == 1 and item.kind.startswith("joint_")
    if state is None or count == 0:
        return 0
    others = state_width(contract.observation, 0)
    return max(0, (math.prod(state.shape) - others) // count)


def _kinds(contract: Contract) -> str:
    return ", ".join(item.kind for item in contract.observation.state) or "nothing"
