"""The exact configurations of published checkpoints, as their `config.json` files state them, with random weights.

Numbers of parameters are those that the published weights have.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.tiny_pipeline import tiny_scheduler

_MERGES = Path(__file__).parent / "data" / "clip_merges.txt.xz"
_START, _END = "<|startoftext|>", "<|endoftext|>"

SD14_UNET: Final[dict[str, Any]] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
}
SD21_UNET: Final[dict[str, Any]] = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "block_out_channels": (320, 640, 1280, 1280),
    "use_linear_projection": True,
}
SDXL_UNET: Final[dict[str, Any]] = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD_VAE: Final[dict[str, Any]] = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
_TOKENS: Final[dict[str, Any]] = {
    "vocab_size": 49408,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 1,
}
SD14_TEXT: Final[dict[str, Any]] = {
    **_TOKENS,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
SD21_TEXT: Final[dict[str, Any]] = {
    **_TOKENS,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
SDXL_TEXT_2: Final[dict[str, Any]] = {
    **_TOKENS,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}


def on_meta(kind: str) -> dict[str, torch.nn.Module]:
    """Build the networks of "sd14", "sd21" or "sdxl" without memory for their weights."""
    with torch.device("meta"):
        unet = {"sd14": SD14_UNET, "sd21": SD21_UNET, "sdxl": SDXL_UNET}[kind]
        text = SD21_TEXT if kind == "sd21" else SD14_TEXT
        parts: dict[str, torch.nn.Module] = {
            "unet": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(**SD_VAE),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text)),
        }
        if kind == "sdxl":
            parts["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**SDXL_TEXT_2))
    return parts


def parameter_count(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's own tokenizer, from its merges."""
    merges = lzma.decompress(_MERGES.read_bytes()).decode()
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [line.replace(" ", "") for line in merges.splitlines()[1:]]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate([*tokens, _START, _END])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text(merges)
    names = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return CLIPTokenizer.from_pretrained(folder)


@torch.no_grad()
def save_random(kind: str, folder: Path, *, size_px: int) -> None:
    """Save a whole "sd14" or "sd21" checkpoint of random weights in float16, made for small pictures."""
    parts = on_meta(kind)
    generator = torch.Generator().manual_seed(0)
    for network in parts.values():
        network.half().to_empty(device="cpu")
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5 * weight[0].numel() ** -0.5, generator=generator)
            else:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
    parts["unet"].register_to_config(sample_size=size_px // 8)  # type: ignore[operator]
    pipeline = StableDiffusionPipeline(
        **parts,  # type: ignore[arg-type]
        tokenizer=clip_tokenizer(folder.with_name("words")),
        scheduler=tiny_scheduler("v_prediction" if kind == "sd21" else "epsilon"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
