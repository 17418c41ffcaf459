"""Run by a Python that has lerobot: small random policies made and asked by lerobot itself, and by our adapter there.

    python reference.py FOLDER

leaves in FOLDER the policies `act`, `diffusion` and `smolvla`, each with `contract.yaml`, `observations.npz` (two
steps), `lerobot.npy` (what lerobot answers to the second) and `adapter.npy` (what our adapter does).
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch

from vla_ros.contract import ActionSpec, Contract, ImageSpec, ObservationSpec, StateItem, load_contract, save_contract
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.lerobot_policy import LeRobotPolicy
from vla_ros.policies.torchvision_operators import import_torchvision
from vla_ros.types import CameraFrame, Observation

import_torchvision()

import transformers
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from tokenizers import Tokenizer, models, pre_tokenizers

HEIGHT, WIDTH, STATE, ACTION, SEED, TASK = 64, 96, 8, 7, 11, "pick up the red block"
IMAGES = {"observation.images.top": "top", "observation.images.hand": "wrist"}
# No weights are fetched, and nothing is larger than it has to be; the ResNet's 11 million are the most of it.
SMALL = {
    "act": {
        "chunk_size": 10, "n_action_steps": 10, "dim_model": 32, "n_heads": 2, "dim_feedforward": 64,
        "n_encoder_layers": 1, "n_decoder_layers": 1, "n_vae_encoder_layers": 1, "latent_dim": 8,
        "temporal_ensemble_coeff": None,
    },
    "diffusion": {
        "n_obs_steps": 2, "horizon": 16, "n_action_steps": 8, "down_dims": (16, 32), "n_groups": 4,
        "num_train_timesteps": 6, "crop_shape": None, "diffusion_step_embed_dim": 16,
        "spatial_softmax_num_keypoints": 4,
    },
    "smolvla": {
        "chunk_size": 6, "n_action_steps": 6, "num_steps": 3, "num_vlm_layers": 2, "resize_imgs_with_padding": (32, 32),
        "load_vlm_weights": False,
    },
}  # fmt: skip


def make(folder: Path, kind: str) -> tuple:
    """A policy with random weights and statistics, saved, and as it is."""
    visual, state = PolicyFeature(FeatureType.VISUAL, (3, HEIGHT, WIDTH)), PolicyFeature(FeatureType.STATE, (STATE,))
    config = make_policy_config(
        kind,
        input_features={**dict.fromkeys(IMAGES, visual), "observation.state": state},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
        device="cpu",
        **(
            {"vlm_model_name": make_vlm(folder / "vlm")} if kind == "smolvla" else {"pretrained_backbone_weights": None}
        ),
        **SMALL[kind],
    )
    torch.manual_seed(0)
    policy = get_policy_class(kind)(config).eval()
    widths = {**dict.fromkeys(IMAGES, (3, 1, 1)), "observation.state": (STATE,), "action": (ACTION,)}
    statistics = {
        name: {"mean": torch.rand(shape), "std": 0.1 * torch.rand(shape) + 0.05, "min": -torch.rand(shape) - 0.1,
               "max": torch.rand(shape) + 0.1}
        for name, shape in widths.items()
    }  # fmt: skip
    before, after = make_pre_post_processors(config, dataset_stats=statistics)
    for part in (policy, before, after):
        part.save_pretrained(folder)
    return policy, before, after


def make_vlm(folder: Path) -> str:
    """What SmolVLA takes from the hub besides its own weights: configuration, processor and tokenizer, all small."""
    words = ["<unk>", "<pad>", "<bos>", "<eos>", "<image>", "<fake>", "<global>", "\n", *TASK.split(), "blue"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    splits = [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        extra_special_tokens={
            "image_token": "<image>", "fake_image_token": "<fake>", "global_image_token": "<global>",
            "end_of_utterance_token": "<eos>",
        },
    )  # fmt: skip
    vision = {
        "model_type": "smolvlm_vision", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    text = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 16, "pad_token_id": 1,
    }  # fmt: skip
    config = transformers.SmolVLMConfig(
        vision_config=vision, text_config=text, scale_factor=2, image_token_id=4, pad_token_id=1
    )
    config.save_pretrained(folder)
    images, videos = transformers.SmolVLMImageProcessor(), transformers.SmolVLMVideoProcessor()
    transformers.SmolVLMProcessor(images, tokenizer=fast, video_processor=videos).save_pretrained(folder)
    return str(folder)


def make_contract(kind: str) -> Contract:
    steps = SMALL[kind].get("n_obs_steps", 1)
    images = {name: ImageSpec(name, WIDTH, HEIGHT) for name in IMAGES.values()}
    state = (StateItem("tcp_pose"), StateItem("gripper"))
    observation = ObservationSpec(images, state, "top", history_steps=steps, history_spacing_s=0.1 * (steps > 1))
    return Contract(kind, observation, ActionSpec("tool", "observation", 0.1, rotation="rotvec"))


def lerobot_answer(policy, before, after, images: np.ndarray, states: np.ndarray, torch_seed: int) -> np.ndarray:
    """By lerobot alone: its own loop sees both steps, and then gives a whole chunk. No code of ours."""
    policy.reset()
    for step in range(2):
        raw = {"observation.state": torch.from_numpy(states[step]).float(), "task": TASK}
        for index, feature in enumerate(IMAGES):
            raw[feature] = torch.from_numpy(images[step, index]).permute(2, 0, 1).float() / 255
        batch = before(raw)
        policy.select_action(batch)
    batch["observation.images"] = batch["observation.images.top"]
    torch.manual_seed(torch_seed)
    batch.pop("action", None)
    chunk = policy.predict_action_chunk(batch)
    return torch.stack([after(chunk[:, step]) for step in range(chunk.shape[1])], dim=1)[0].numpy()


def observe(images: np.ndarray, states: np.ndarray, history_steps: int) -> Observation:
    """The newest of the steps, with those before it as far as the contract asks for them."""
    layout = {"tcp_pose": slice(0, 7), "gripper": slice(7, 8)}
    steps = []
    for step in range(len(states)):
        frames = {name: CameraFrame(step, images[step, index]) for index, name in enumerate(IMAGES.values())}
        steps.append(Observation(step, frames, states[step], layout, np.eye(4), 1.0, TASK))
    past = tuple(steps[-history_steps:-1])
    return dataclasses.replace(steps[-1], history=past)


def main(folder: Path) -> None:
    rng = np.random.default_rng(5)
    for kind in SMALL:
        parts = make(folder / kind, kind)
        images = rng.integers(0, 256, (2, 2, HEIGHT, WIDTH, 3), dtype=np.uint8)
        states = rng.normal(size=(2, STATE))
        np.savez(folder / kind / "observations.npz", images=images, states=states)
        torch_seed = int(np.random.default_rng(SEED).integers(2**31))
        np.save(folder / kind / "lerobot.npy", lerobot_answer(*parts, images, states, torch_seed))
        path = folder / kind / "contract.yaml"
        save_contract(make_contract(kind), path)
        parameters = {"checkpoint": str(folder / kind), "images": {"observation.images.hand": "wrist"}}
        contract = load_contract(str(path))
        adapter = LeRobotPolicy.from_parameters(contract, parameters)
        adapter.reset(TASK, SEED)
        observation = observe(images, states, contract.observation.history_steps)
        np.save(folder / kind / "adapter.npy", adapter.infer(observation, InferenceContext()).actions)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
