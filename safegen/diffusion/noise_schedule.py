"""The forward process of a checkpoint: noising, and what a U-Net must predict to mean a given clean picture.

Notation: z a latent, a_t the cumulative product of alphas, x_t = sqrt(a_t) z + sqrt(1 - a_t) e.

    epsilon-prediction   e                                (Ho et al. 2020, arXiv 2006.11239, section 3.2)
    v-prediction         sqrt(a_t) e - sqrt(1 - a_t) z    (Salimans and Ho 2022, arXiv 2202.00512, appendix D)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from jaxtyping import Float, Int

from safegen.errors import EditError

Prediction = Literal["epsilon", "v_prediction"]
Target = Literal["paper_code", "exact"]

_BETA_SCHEDULES: Final = ("scaled_linear", "linear")


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """Noise levels of a checkpoint and the form of its prediction.

    Attributes:
        alphas_cumprod: a_t for every t, float32 in (0, 1).
        prediction: What the U-Net predicts.
    """

    alphas_cumprod: Float[torch.Tensor, "timesteps"]
    prediction: Prediction

    @property
    def timesteps(self) -> int:
        """Number of noise levels."""
        return len(self.alphas_cumprod)

    def noised(
        self,
        clean: Float[torch.Tensor, "b *latent"],
        noise: Float[torch.Tensor, "b *latent"],
        t: Int[torch.Tensor, "b"],
    ) -> Float[torch.Tensor, "b *latent"]:
        """Return x_t of clean latents."""
        a = self._a(t, clean)
        return a.sqrt() * clean + (1 - a).sqrt() * noise

    def truth(
        self,
        clean: Float[torch.Tensor, "b *latent"],
        noise: Float[torch.Tensor, "b *latent"],
        t: Int[torch.Tensor, "b"],
    ) -> Float[torch.Tensor, "b *latent"]:
        """Return what a perfect U-Net predicts at x_t of these latents and this noise."""
        if self.prediction == "epsilon":
            return noise
        a = self._a(t, clean)
        return a.sqrt() * noise - (1 - a).sqrt() * clean

    def mosaic_target(
        self,
        unsafe: Float[torch.Tensor, "b *latent"],
        censored: Float[torch.Tensor, "b *latent"],
        noise: Float[torch.Tensor, "b *latent"],
        t: Int[torch.Tensor, "b"],
        target: Target,
    ) -> Float[torch.Tensor, "b *latent"]:
        """Return what the edited U-Net shall predict at x_t of an unsafe latent (SafeGen, section 4.3).

        In epsilon form the target is e + k_t (unsafe - censored). ``paper_code`` has k_t = 1, as the published code
        does; ``exact`` has k_t = sqrt(a_t / (1 - a_t)), with which the predicted clean latent is the censored one.
        A shift d of epsilon at fixed x_t is a shift d / sqrt(a_t) of v, because eps = sqrt(a_t) v + sqrt(1 - a_t) x_t;
        so the exact v target is v + (unsafe - censored) / sqrt(1 - a_t). (The published v target is the velocity of
        the difference image, which means no clean picture at all; it is not reproduced.)
        """
        a = self._a(t, unsafe)
        shift = unsafe - censored
        if target == "exact":
            shift = (a / (1 - a)).sqrt() * shift
        if self.prediction == "v_prediction":
            shift = shift / a.sqrt()
        return self.truth(unsafe, noise, t) + shift

    def clean_error_weight(self, t: Int[torch.Tensor, "b"]) -> Float[torch.Tensor, "b"]:
        """Return the weight that turns a squared error of the prediction into one of the predicted clean latent.

        It is (1 - a_t) / a_t for epsilon and 1 - a_t for v. Without it the exact target, which grows as t falls,
        lets the smallest t dominate the loss.
        """
        a = self.alphas_cumprod.to(t.device)[t]
        return (1 - a) / a if self.prediction == "epsilon" else 1 - a

    def predicted_clean(
        self,
        noised: Float[torch.Tensor, "b *latent"],
        predicted: Float[torch.Tensor, "b *latent"],
        t: Int[torch.Tensor, "b"],
    ) -> Float[torch.Tensor, "b *latent"]:
        """Return the clean latent that a prediction at x_t means."""
        a = self._a(t, noised)
        if self.prediction == "epsilon":
            return (noised - (1 - a).sqrt() * predicted) / a.sqrt()
        return a.sqrt() * noised - (1 - a).sqrt() * predicted

    def _a(self, t: Int[torch.Tensor, "b"], like: torch.Tensor) -> torch.Tensor:
        a = self.alphas_cumprod.to(device=like.device, dtype=torch.float32)[t]
        return a.reshape(-1, *[1] * (like.ndim - 1))


def noise_schedule(scheduler_config: dict[str, Any]) -> NoiseSchedule:
    """Read the noise schedule out of a diffusers scheduler configuration.

    Raises:
        EditError: The schedule or the form of prediction is not one that an edit can target.

    >>> noise_schedule({"beta_start": 0.1, "beta_end": 0.1, "num_train_timesteps": 2,
    ...                 "beta_schedule": "linear"}).alphas_cumprod
    tensor([0.9000, 0.8100])
    """
    prediction = scheduler_config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise EditError(f"scheduler: prediction_type is {prediction!r}; expected epsilon or v_prediction")
    if scheduler_config.get("rescale_betas_zero_snr"):
        raise EditError(
            "scheduler: rescale_betas_zero_snr is set, so the last noise level holds no picture to edit; "
            "expected a schedule that keeps some signal, as SD 1.x and 2.x have"
        )
    return NoiseSchedule((1 - _betas(scheduler_config)).cumprod(0).float(), prediction)


def _betas(scheduler_config: dict[str, Any]) -> Float[torch.Tensor, "timesteps"]:
    trained = scheduler_config.get("trained_betas")
    if trained is not None:
        return torch.tensor(trained, dtype=torch.float64)
    kind = scheduler_config.get("beta_schedule")
    if kind not in _BETA_SCHEDULES:
        raise EditError(f"scheduler: beta_schedule is {kind!r}; expected one of {', '.join(_BETA_SCHEDULES)}")
    try:
        start, end = float(scheduler_config["beta_start"]), float(scheduler_config["beta_end"])
        count = int(scheduler_config["num_train_timesteps"])
    except KeyError as error:
        raise EditError(
            f"scheduler: {error} is missing; expected a diffusers scheduler configuration"
        ) from error
    if kind == "linear":
        return torch.linspace(start, end, count, dtype=torch.float64)
    return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
