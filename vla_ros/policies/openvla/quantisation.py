"""Weights of linear layers in eight or four bits: ours in plain torch, and through torchao and bitsandbytes.

Ours are for comparison and for machines without those libraries: they save memory, not time, since each use turns the
weights back into the activations' type. Weights are symmetric about zero; activations aren't quantised.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vla_ros.errors import ConfigError, MissingDependencyError, UnknownNameError
from vla_ros.policies.openvla.model import OpenVLA

# Quantiles of a normal distribution, scaled to [-1, 1], with an exact zero.
# Source: Dettmers et al., QLoRA (arXiv 2305.14314), appendix E.
NF4_VALUES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


@dataclass(frozen=True)
class Scheme:
    """How weights are written.

    Attributes:
        name: as policies' YAML has it.
        library: whose code computes.
        code: `int8` and `int4` are uniform, `nf4` has quantiles of a normal distribution.
        share: what shares a scale: the whole `tensor`, each `channel` (row), or each `group` of a row's entries.
        group: entries of a row that share a scale.
    """

    name: str
    library: Literal["own", "torchao", "bitsandbytes"]
    code: Literal["int8", "int4", "nf4"]
    share: Literal["tensor", "channel", "group"]
    group: int = 64


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("int8_tensor", "own", "int8", "tensor"),
        Scheme("int8_channel", "own", "int8", "channel"),
        Scheme("int8_group", "own", "int8", "group"),
        Scheme("int4_tensor", "own", "int4", "tensor"),
        Scheme("int4_channel", "own", "int4", "channel"),
        Scheme("int4_group", "own", "int4", "group"),
        Scheme("nf4", "own", "nf4", "group"),
        Scheme("torchao_int8", "torchao", "int8", "channel"),
        Scheme("bitsandbytes_int8", "bitsandbytes", "int8", "channel"),
        Scheme("bitsandbytes_nf4", "bitsandbytes", "nf4", "group"),
    )
}
# As usual, what speaks the last word stays as it is.
_KEPT = ("lm_head",)

# bitsandbytes 0.50 on a CPU gives rows back wrong whose length isn't a multiple of this (twice the error of its own
# formula), as 4304 in SigLIP; ours takes those.
_WHOLE_BLOCKS = 64


class QuantisedLinear(nn.Module):
    """A linear layer whose weight is kept as codes and scales.

    Args:
        linear: whose weight is quantised and whose bias is kept.
        scheme: one of ours.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear, scheme: Scheme) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._scheme = scheme
        codes, scales = encode(linear.weight.detach(), scheme)
        # They follow from the checkpoint: who keeps what changes in training needn't keep them.
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.bias = linear.bias

    def weight(self, dtype: torch.dtype) -> Tensor:
        """(outputs, inputs) weight as the codes have it."""
        return decode(self.codes, self.scales, self._scheme, self.in_features).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = _CodedLinear.apply(x, self)  # type: ignore[no-untyped-call]
        return product


class _CodedLinear(torch.autograd.Function):
    """x W^T + b whose backward pass turns the codes into weights once more.

    So what is kept between the passes is the codes, which are there anyway, and not a weight in full width a layer:
    that is what makes training adapters on quantised weights (QLoRA) small.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        return nn.functional.linear(x, layer.weight(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.weight(gradient.dtype), None


def encode(weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """A weight's codes and scales.

    Args:
        weight: (outputs, inputs).
        scheme: one of ours.

    Returns:
        Codes, int8 (outputs, inputs) or uint8 with two a byte (outputs, inputs / 2, rounded up to whole groups), and
        float32 scales (1, 1), (outputs, 1) or (outputs, groups).
    """
    groups = _grouped(weight.to(torch.float32), scheme)
    dimensions = (0, 1, 2) if scheme.share == "tensor" else 2
    scales = groups.abs().amax(dim=dimensions, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    if scheme.code == "nf4":
        values = torch.tensor(NF4_VALUES, device=weight.device)
        codes = torch.bucketize(groups / scales, 0.5 * (values[1:] + values[:-1])).to(torch.uint8)
    else:
        largest = 127 if scheme.code == "int8" else 7
        scales = scales / largest
        codes = torch.round(groups / scales).clamp(-largest, largest).to(torch.int8)
    codes = codes.flatten(1)
    if scheme.code == "int8":
        return codes[:, : weight.shape[1]].contiguous(), scales[..., 0]
    nibbles = (codes if scheme.code == "nf4" else codes + 8).to(torch.uint8)
    return nibbles[:, 0::2] | (nibbles[:, 1::2] << 4), scales[..., 0]


def decode(codes: Tensor, scales: Tensor, scheme: Scheme, inputs: int) -> Tensor:
    """(outputs, inputs) float32 weight of what `encode` gave."""
    if scheme.code == "int8":
        values = codes.to(torch.float32)
    else:
        nibbles = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(1)
        if scheme.code == "nf4":
            values = torch.tensor(NF4_VALUES, device=codes.device)[nibbles.long()]
        else:
            values = nibbles.to(torch.float32) - 8
    return (_grouped(values, scheme) * scales[..., None]).flatten(1)[:, :inputs]


def _grouped(weight: Tensor, scheme: Scheme) -> Tensor:
    """(outputs, groups, entries), one group a row but for `group`; zeros fill the last one, and odd rows in 4 bits."""
    rows, columns = weight.shape
    size = scheme.group if scheme.share == "group" else columns + (columns % 2 if scheme.code != "int8" else 0)
    return nn.functional.pad(weight, (0, -columns % size)).reshape(rows, -1, size)


def round_trip(weight: Tensor, scheme: Scheme) -> Tensor:
    """A weight (outputs, inputs) as its codes give it back, in its own dtype."""
    return decode(*encode(weight, scheme), scheme, weight.shape[1]).to(weight.dtype)


def find_scheme(name: str) -> Scheme:
    """The scheme of that name.

    Raises:
        UnknownNameError: for another name.
        MissingDependencyError: if the scheme's library isn't installed.
    """
    if name not in SCHEMES:
        raise UnknownNameError("quantisation", name, SCHEMES)
    library = SCHEMES[name].library
    if library != "own" and importlib.util.find_spec(library) is None:
        raise MissingDependencyError(library, f"quantisation {name}", f"pip install {library}")
    return SCHEMES[name]


def quantise(model: OpenVLA, scheme: str) -> OpenVLA:
    """Replaces the weights of the model's linear layers, in place, but for the head's; adapters stay as they are.

    Args:
        model: with adapters loaded, if any.
        scheme: name in SCHEMES.

    Raises:
        UnknownNameError: for another name.
        MissingDependencyError: if the scheme's library isn't installed.
        ConfigError: if the library can't do it here.
    """
    chosen = find_scheme(scheme)
    if chosen.library == "torchao":
        _quantise_torchao(model)
        return model
    for parent, name, linear in list(_linears(model)):
        is_own = chosen.library == "own" or (chosen.code == "nf4" and linear.in_features % _WHOLE_BLOCKS)
        setattr(parent, name, QuantisedLinear(linear, chosen) if is_own else _bitsandbytes_linear(linear, chosen))
    return model


def weight_bytes(model: nn.Module) -> int:
    """Bytes that the model's parameters and buffers take, scales and codes included."""
    tensors = [*model.parameters(), *model.buffers()]
    states = [getattr(tensor, "quant_state", None) for tensor in model.parameters()]
    return sum(_bytes(tensor) for tensor in tensors) + sum(_state_bytes(state) for state in states if state is not None)


def _linears(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Each linear layer that is computed as one, with its parent and its name there."""
    for path, parent in model.named_modules():
        if isinstance(parent, nn.MultiheadAttention):
            continue
        for name, child in parent.named_children():
            full = f"{path}.{name}"
            if isinstance(child, nn.Linear) and name not in _KEPT and ".lora_" not in full:
                yield parent, name, child


def _quantise_torchao(model: OpenVLA) -> None:
    try:
        torchao = importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise MissingDependencyError("torchao", "quantisation torchao_int8", "pip install torchao") from error
    chosen = {id(linear) for _, _, linear in _linears(model)}
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig(), filter_fn=lambda module, _: id(module) in chosen)


def _bitsandbytes_linear(linear: nn.Linear, scheme: Scheme) -> nn.Module:
    try:
        bitsandbytes = importlib.import_module("bitsandbytes")
    except ImportError as error:
        mend = "pip install bitsandbytes"
        raise MissingDependencyError("bitsandbytes", f"quantisation {scheme.name}", mend) from error
    size, has_bias = (linear.in_features, linear.out_features), linear.bias is not None
    layer: nn.Module
    if scheme.code == "nf4":
        layer = bitsandbytes.nn.Linear4bit(*size, has_bias, compute_dtype=linear.weight.dtype, quant_type="nf4")
    else:
        layer = bitsandbytes.nn.Linear8bitLt(*size, has_bias, has_fp16_weights=False)
    layer.load_state_dict(linear.state_dict())
    try:
        return layer.to(linear.weight.device).requires_grad_(False)
    except (RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            scheme.name, f"bitsandbytes can't on {linear.weight.device} ({error})", "choose nf4"
        ) from error


def _bytes(tensor: Any) -> int:
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes(getattr(tensor, name)) for name in names)
    codes = getattr(tensor, "CB", None)
    own: int = tensor.numel() * tensor.element_size()
    # bitsandbytes keeps the scales of eight bits beside the weight.
    return own + (_bytes(tensor.SCB) if codes is not None and tensor.SCB is not None else 0)


def _state_bytes(state: Any) -> int:
    parts = [state.absmax, state.code]
    return sum(_bytes(part) for part in parts) + (_state_bytes(state.state2) if state.nested else 0)
