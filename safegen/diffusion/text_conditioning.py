"""What tells a U-Net the text, whatever its family: states of the tokens, and what SDXL asks for besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float


@dataclass(frozen=True, slots=True)
class TextConditioning:
    """The conditions of n pictures.

    Attributes:
        states: Hidden states of the text towers, token by token.
        pooled: SDXL's pooled state of its second tower; None in SD 1.x and 2.x.
        time_ids: SDXL's sizes in pixels, as floats: original height and width, crop top and left, target height and
            width; None in SD 1.x and 2.x.
    """

    states: Float[torch.Tensor, "n tokens text_width"]
    pooled: Float[torch.Tensor, "n pooled_width"] | None = None
    time_ids: Float[torch.Tensor, "n 6"] | None = None

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: torch.Tensor | slice) -> TextConditioning:
        """Return some of the rows, as a tensor is indexed."""
        return TextConditioning(*(None if part is None else part[rows] for part in self._parts()))  # pyright: ignore[reportArgumentType]

    def to(self, target: torch.device | torch.dtype) -> TextConditioning:
        """Return it on another device or in another floating-point type."""
        return TextConditioning(*(None if part is None else part.to(target) for part in self._parts()))  # pyright: ignore[reportArgumentType]

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Return the parts that there are."""
        return tuple(part for part in self._parts() if part is not None)

    def unet_inputs(self) -> dict[str, Any]:
        """Return the keyword arguments by which a `UNet2DConditionModel` is told of it."""
        inputs: dict[str, Any] = {"encoder_hidden_states": self.states}
        if self.pooled is not None:
            inputs["added_cond_kwargs"] = {"text_embeds": self.pooled, "time_ids": self.time_ids}
        return inputs

    def _parts(self) -> tuple[torch.Tensor | None, ...]:
        return (self.states, self.pooled, self.time_ids)


def concatenate(parts: Sequence[TextConditioning]) -> TextConditioning:
    """Put conditions of one family one after the other."""
    columns = list(zip(*(part.tensors() for part in parts), strict=True))
    return TextConditioning(*(torch.cat(column) for column in columns))
