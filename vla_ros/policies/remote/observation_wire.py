"""Observation, context and chunk in our own form of openpi's messages: all that the policy would have seen here.

A request is a mapping in openpi's manner:

    prompt                          the instruction
    observation/state               (d,) float64, the contract's state vector
    observation/images/NAME         (height, width, 3) uint8, by the contract's image name
    vla_ros                         what openpi has no words for; a request without it is a plain client's:
        protocol, seq, session      version, number of the request, who asks
        call                        `infer`, `reset` (with task and seed alone) or `select` (another loaded policy)
        contract                    interface hash under which the observation was made
        reset: {task, seed}         to be done before this inference
        stamp_ns, T_base_tcp, gripper_opening, state_layout {item: [start, stop]}
        cameras: {NAME: {stamp_ns, T_base_cam, width, height, K, distortion}}
        history                 the observations before it, oldest first, each like this without context or history
        context: {expected_delay_s, execution_horizon_steps, committed: a ToolChunk's or a JointChunk's fields, or none}

and a reply is `actions` (steps, width), `is_idle`, `note`, `server_timing`, and `vla_ros: {seq}`. The committed prefix
travels whole and absolute, so that real-time chunking is the same on either side of a wire.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vla_ros.contract import Contract
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.remote.errors import WireError
from vla_ros.policies.remote.fields import take, take_array, take_float, take_image, take_int, take_mapping, take_text
from vla_ros.types import ActionChunk, CameraFrame, CameraModel, ImageArray, JointChunk, Observation, ToolChunk

PROTOCOL = 1
OWN = "vla_ros"
STATE, PROMPT, IMAGES = "observation/state", "prompt", "observation/images/"


def encode_observation(observation: Observation, context: InferenceContext) -> dict[str, Any]:
    """The request for an inference, without `seq`, `session` and `contract`."""
    message = _encode_one(observation)
    message[OWN] |= {
        "protocol": PROTOCOL,
        "call": "infer",
        "history": [_encode_one(past) for past in observation.history],
        "context": {
            "expected_delay_s": context.expected_delay_s,
            "execution_horizon_steps": context.execution_horizon_steps,
            "committed": None if context.committed is None else _encode_committed(context.committed),
        },
    }
    return message


def _encode_one(observation: Observation) -> dict[str, Any]:
    message: dict[str, Any] = {f"{IMAGES}{name}": frame.image for name, frame in observation.images.items()}
    layout = {name: [part.start, part.stop] for name, part in observation.state_layout.items()}
    own = {
        "stamp_ns": observation.stamp_ns,
        "T_base_tcp": observation.T_base_tcp,
        "gripper_opening": observation.gripper_opening,
        "state_layout": layout,
        "cameras": {name: _encode_camera(frame) for name, frame in observation.images.items()},
    }
    return message | {STATE: observation.state, PROMPT: observation.instruction, OWN: own}


def decode_observation(message: Mapping[Any, Any], contract: Contract) -> tuple[Observation, InferenceContext]:
    """The observation and context of a request in our own form.

    Args:
        message: as it arrived.
        contract: of the policy that is to answer; its images must be there.

    Raises:
        WireError: for what is missing, or has another type or shape.
    """
    own = take_mapping(message, OWN)
    context, history = take_mapping(own, "context"), take(own, "history")
    steps = contract.observation.history_steps
    if not isinstance(history, list) or not all(isinstance(past, dict) for past in history):
        raise WireError("type", "'history' isn't a list of observations")
    if len(history) != steps - 1:
        raise WireError("shape", f"{len(history)} observations come before this one, the contract means {steps - 1}")
    observation = replace(
        _decode_one(message, contract), history=tuple(_decode_one(past, contract) for past in history)
    )
    committed = take(context, "committed")
    return observation, InferenceContext(
        take_float(context, "expected_delay_s"),
        take_int(context, "execution_horizon_steps"),
        None if committed is None else _decode_committed(take_mapping(context, "committed")),
    )


def _decode_one(message: Mapping[Any, Any], contract: Contract) -> Observation:
    own = take_mapping(message, OWN)
    cameras = take_mapping(own, "cameras")
    images = {}
    for name in contract.observation.images:
        image = take_image(message, IMAGES + name)
        images[name] = _decode_camera(take_mapping(cameras, name), image)
    state = take_array(message, STATE, (None,))
    return Observation(
        take_int(own, "stamp_ns"),
        images,
        state,
        _decode_layout(take_mapping(own, "state_layout"), len(state)),
        take_array(own, "T_base_tcp", (4, 4)),
        None if take(own, "gripper_opening") is None else take_float(own, "gripper_opening"),
        take_text(message, PROMPT),
    )


def encode_chunk(chunk: ActionChunk) -> dict[str, Any]:
    """The reply, without `vla_ros` and `server_timing`; a plain client finds its `actions` there, too."""
    return {"actions": chunk.actions, "is_idle": chunk.is_idle, "note": chunk.note}


def _encode_camera(frame: CameraFrame) -> dict[str, Any]:
    found: dict[str, Any] = {"stamp_ns": frame.stamp_ns, "T_base_cam": frame.T_base_cam}
    if frame.camera is not None:
        camera = frame.camera
        found |= {"width": camera.width, "height": camera.height, "K": camera.K, "distortion": list(camera.distortion)}
    return found


def _decode_camera(message: Mapping[Any, Any], image: ImageArray) -> CameraFrame:
    camera = None
    if "K" in message:
        distortion = take(message, "distortion")
        if not isinstance(distortion, list) or not all(isinstance(item, int | float) for item in distortion):
            raise WireError("type", "'distortion' isn't a list of numbers")
        camera = CameraModel(
            take_int(message, "width"),
            take_int(message, "height"),
            take_array(message, "K", (3, 3)),
            tuple(map(float, distortion)),
        )
    T_base_cam = None if take(message, "T_base_cam") is None else take_array(message, "T_base_cam", (4, 4))
    return CameraFrame(take_int(message, "stamp_ns"), image, camera, T_base_cam)


def _decode_layout(message: Mapping[Any, Any], width: int) -> dict[str, slice]:
    layout = {}
    for name, part in message.items():
        is_pair = isinstance(part, list) and len(part) == 2 and all(type(end) is int for end in part)
        if not is_pair or not 0 <= part[0] <= part[1] <= width:
            raise WireError("shape", f"state_layout of {str(name)[:40]!r} is {str(part)[:40]}, the state has {width}")
        layout[str(name)] = slice(part[0], part[1])
    return layout


def _encode_committed(chunk: ToolChunk | JointChunk) -> dict[str, Any]:
    return {field.name: getattr(chunk, field.name) for field in dataclasses.fields(chunk)}


def _decode_committed(message: Mapping[Any, Any]) -> ToolChunk | JointChunk:
    times_s = take_array(message, "time_from_start_s", (None,))
    steps = len(times_s)
    stamp_ns, source = take_int(message, "stamp_ns"), take_text(message, "source")
    openings = None if take(message, "openings") is None else take_array(message, "openings", (steps,))
    if "positions" in message:
        return JointChunk(stamp_ns, take_array(message, "positions", (steps, None)), openings, times_s, source)
    anchor = None if take(message, "T_base_anchor") is None else take_array(message, "T_base_anchor", (4, 4))
    transforms = take_array(message, "transforms", (steps, 4, 4))
    return ToolChunk(stamp_ns, take_text(message, "frame"), transforms, openings, times_s, source, anchor)
