"""A CLIP model with all that must be said about it: name, digest, and how pictures enter it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from safegen.domain.digests import sha256_file
from safegen.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

Triple = tuple[float, float, float]

_HUB_FILES = ("*.json", "merges.txt", "model.safetensors")


@dataclass(frozen=True, slots=True)
class ClipPair:
    """Text and vision tower of one CLIP model.

    Attributes:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        name: Such as "miniature" or "ViT-L/14".
        sha256: Digest of its weights.
        mean: Subtracted from pictures in [0, 1], per channel.
        std: Then divided by, per channel.
    """

    model: CLIPModel
    tokenizer: CLIPTokenizer
    name: str
    sha256: str
    mean: Triple
    std: Triple

    @property
    def size_px(self) -> int:
        """Side of the pictures that the vision tower sees."""
        return cast("int", self._vision_config.image_size)

    @property
    def width(self) -> int:
        """Number of pooled features."""
        return self._vision_config.hidden_size

    @property
    def depth(self) -> int:
        """Number of layers of the vision tower."""
        return self._vision_config.num_hidden_layers

    @property
    def _vision_config(self) -> CLIPVisionConfig:
        return cast("CLIPVisionConfig", self.model.config.vision_config)

    @property
    def resize_rule(self) -> str:
        """How pictures of another size are brought to it."""
        return (
            f"bicubic on bytes, shorter side to {self.size_px} px, middle {self.size_px} x {self.size_px} px"
        )

    def vision_input(self, pictures: Sequence[NDArray[np.uint8]]) -> Float[torch.Tensor, "b 3 size size"]:
        """Turn RGB pictures (H, W, 3) uint8 into the vision tower's input, as CLIP's own processor does."""
        sized = np.stack([_sized(picture, self.size_px) for picture in pictures])
        batch = torch.from_numpy(sized).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(triple)[:, None, None] for triple in (self.mean, self.std))
        return ((batch - mean) / std).to(device=self.model.device, dtype=self.model.dtype)

    @torch.no_grad()
    def picture_embeddings(
        self, pictures: Sequence[NDArray[np.uint8]]
    ) -> tuple[
        Float[torch.Tensor, "b joint"], tuple[Float[torch.Tensor, "b tokens width"], ...], torch.Tensor
    ]:
        """Pass pictures through the vision tower once.

        Returns:
            Embeddings in the space shared with text; the hidden states, input of the first layer first; and the
            pooled features (b, width) from which the embeddings are projected. All float32 on the CPU.
        """
        out = self.model.vision_model(pixel_values=self.vision_input(pictures), output_hidden_states=True)
        embedded = self.model.visual_projection(out.pooler_output)
        states = tuple(state.float().cpu() for state in out.hidden_states)
        return embedded.float().cpu(), states, out.pooler_output.float().cpu()

    @torch.no_grad()
    def text_embeddings(self, prompts: Sequence[str]) -> Float[torch.Tensor, "b joint"]:
        """Return the embeddings of prompts in the space shared with pictures, float32 on the CPU."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=cast("CLIPTextConfig", self.model.config.text_config).max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        ).to(self.model.device)
        out = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return self.model.text_projection(out.pooler_output).float().cpu()


def load_clip_pair(folder: Path, tokenizer_folder: Path | None = None, *, name: str) -> ClipPair:
    """Load a CLIP model from a local folder in transformers' layout, safetensors only.

    Args:
        folder: With `config.json`, `model.safetensors` and `preprocessor_config.json`.
        tokenizer_folder: Where the tokenizer is, if not there.
        name: What reports call it.

    Raises:
        DataError: A file is missing or cannot be used.
    """
    from transformers import CLIPModel, CLIPTokenizer

    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise DataError(
            f"CLIP model {folder}: model.safetensors is missing; expected a CLIPModel in transformers layout"
        )
    mean, std = _normalisation(folder / "preprocessor_config.json")
    try:
        model = CLIPModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32
        ).eval()
        tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder or folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"CLIP model {folder}: cannot be loaded ({error})") from error
    return ClipPair(model, tokenizer, name, sha256_file(weights), mean, std)


def _sized(picture: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if (height, width) == (side_px, side_px):
        return picture
    shorter = min(height, width)
    size = (int(side_px * width / shorter), int(side_px * height / shorter))
    resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    left, top = (size[0] - side_px) // 2, (size[1] - side_px) // 2
    return resized[top : top + side_px, left : left + side_px]


def fetch_clip_folder(repository: str, revision: str | None) -> Path:
    """Return the local folder of a CLIP model on the Hugging Face Hub; fetched once.

    Args:
        repository: Such as "openai/clip-vit-large-patch14".
        revision: A commit, so that a score names one model for ever.

    Raises:
        ConfigError: No revision is given.
        DataError: There is no such folder or repository, or the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    if revision is None:
        raise ConfigError(
            f"CLIP model {repository!r} is no folder, and as a Hub id it needs a commit; set evaluate.clip.revision"
        )
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_HUB_FILES)))
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"CLIP model {repository!r} at {revision}: cannot be fetched ({type(error).__name__}); run hf download "
            f"{repository} --revision {revision} where the Hub can be reached, and name that folder"
        ) from error


def _normalisation(path: Path) -> tuple[Triple, Triple]:
    try:
        config = json.loads(path.read_text())
        mean, std = (tuple(float(number) for number in config[key]) for key in ("image_mean", "image_std"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"CLIP model: {path} gives no image_mean and image_std ({error!r}); without them scores mean nothing"
        ) from error
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise DataError(
            f"CLIP model: {path} has image_mean {mean} and image_std {std}; expected three numbers each"
        )
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
