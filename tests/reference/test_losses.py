"""Targets and weights of the edit against numbers worked out by hand, and against diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from safegen.diffusion.losses import weighted_mse
from safegen.diffusion.noise_schedule import NoiseSchedule, noise_schedule
from safegen.errors import EditError

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
# sqrt(0.64) = 0.8 and sqrt(0.36) = 0.6, so every number below is exact.
A = 0.64
UNSAFE, CENSORED, NOISE = 2.0, 0.5, -1.0
X_T = 0.8 * UNSAFE + 0.6 * NOISE  # 1.0
FORMS = ("epsilon", "v_prediction")


def schedule(prediction: str) -> NoiseSchedule:
    return NoiseSchedule(torch.tensor([0.99, A]), prediction)  # type: ignore[arg-type]


def latent(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


T = torch.tensor([1])


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        # e + (zu - zc) = -1 + 1.5
        ("epsilon", "paper_code", 0.5),
        # e + 0.8 / 0.6 * 1.5 = -1 + 2
        ("epsilon", "exact", 1.0),
        # v = 0.8 * -1 - 0.6 * 2 = -2; the shift 1.5 of epsilon is 1.5 / 0.8 = 1.875 of v
        ("v_prediction", "paper_code", -0.125),
        # v + 1.5 / 0.6 = -2 + 2.5
        ("v_prediction", "exact", 0.5),
    ],
)
def test_mosaic_targets_have_the_values_worked_out_by_hand(
    prediction: str, target: str, expected: float
) -> None:
    found = schedule(prediction).mosaic_target(latent(UNSAFE), latent(CENSORED), latent(NOISE), T, target)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("prediction", "expected"), [("epsilon", -1.0), ("v_prediction", -2.0)])
def test_noising_and_truth_have_the_values_worked_out_by_hand(prediction: str, expected: float) -> None:
    assert schedule(prediction).noised(latent(UNSAFE), latent(NOISE), T).item() == pytest.approx(X_T)
    assert schedule(prediction).truth(latent(UNSAFE), latent(NOISE), T).item() == pytest.approx(expected)


@pytest.mark.parametrize("prediction", FORMS)
def test_exact_targets_mean_the_censored_picture_at_every_noise_level(prediction: str) -> None:
    levels = noise_schedule({**STABLE_DIFFUSION, "prediction_type": prediction})
    t = torch.arange(0, 1000, 111)
    generator = torch.Generator().manual_seed(0)
    unsafe, censored, noise = (torch.randn(len(t), 4, 3, 3, generator=generator) for _ in range(3))
    x_t = levels.noised(unsafe, noise, t)
    means = levels.predicted_clean(x_t, levels.mosaic_target(unsafe, censored, noise, t, "exact"), t)
    torch.testing.assert_close(means, censored, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        levels.predicted_clean(x_t, levels.truth(unsafe, noise, t), t), unsafe, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("target", ["paper_code", "exact"])
def test_both_forms_of_a_target_mean_the_same_picture(target: str) -> None:
    t = torch.arange(0, 1000, 111)
    generator = torch.Generator().manual_seed(1)
    unsafe, censored, noise = (torch.randn(len(t), 4, 3, 3, generator=generator) for _ in range(3))
    meant: list[torch.Tensor] = []
    for prediction in FORMS:
        levels = noise_schedule({**STABLE_DIFFUSION, "prediction_type": prediction})
        x_t = levels.noised(unsafe, noise, t)
        wanted = levels.mosaic_target(unsafe, censored, noise, t, target)  # type: ignore[arg-type]
        meant.append(levels.predicted_clean(x_t, wanted, t))
    torch.testing.assert_close(meant[0], meant[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("prediction", "expected"), [("epsilon", 0.36 / 0.64), ("v_prediction", 0.36)])
def test_the_weight_turns_errors_of_the_prediction_into_errors_of_the_clean_picture(
    prediction: str, expected: float
) -> None:
    levels = schedule(prediction)
    weight = levels.clean_error_weight(T)
    assert weight.item() == pytest.approx(expected)
    truth = levels.truth(latent(UNSAFE), latent(NOISE), T)
    off = levels.predicted_clean(latent(X_T), truth + 0.7, T) - latent(UNSAFE)
    assert weighted_mse(truth + 0.7, truth, weight).item() == pytest.approx(off.square().item(), rel=1e-5)


def test_the_loss_is_the_mean_over_samples_of_weighted_means() -> None:
    predicted = torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]])
    # sample means of squares: (1 + 9) / 2 = 5 and 4
    assert weighted_mse(predicted, torch.zeros(2, 1, 2)).item() == pytest.approx(4.5)
    weighted = weighted_mse(predicted, torch.zeros(2, 1, 2), torch.tensor([0.2, 2.0]))
    assert weighted.item() == pytest.approx((1.0 + 8.0) / 2)
    assert weighted_mse(predicted.half(), torch.zeros(2, 1, 2)).dtype == torch.float32


@pytest.mark.parametrize("prediction", FORMS)
@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
def test_noise_levels_and_velocities_are_those_of_diffusers(prediction: str, kind: str) -> None:
    config = {**STABLE_DIFFUSION, "beta_schedule": kind, "prediction_type": prediction}
    theirs = DDIMScheduler(**config)
    ours = noise_schedule(dict(theirs.config))
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-4, atol=0)
    t = torch.tensor([0, 500, 999])
    clean, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    torch.testing.assert_close(ours.noised(clean, noise, t), theirs.add_noise(clean, noise, t))
    if prediction == "v_prediction":
        torch.testing.assert_close(
            ours.truth(clean, noise, t), theirs.get_velocity(clean, noise, t), rtol=1e-4, atol=1e-4
        )


def test_betas_that_a_checkpoint_brings_are_used() -> None:
    theirs = DDIMScheduler(trained_betas=[0.1, 0.2, 0.5], num_train_timesteps=3)
    torch.testing.assert_close(noise_schedule(dict(theirs.config)).alphas_cumprod, theirs.alphas_cumprod)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule is 'squaredcos_cap_v2'"),
        ({"prediction_type": "sample"}, "prediction_type is 'sample'"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"beta_start": None}, "'beta_start' is missing"),
    ],
)
def test_schedules_that_an_edit_cannot_target_are_refused(change: dict[str, object], message: str) -> None:
    config = {key: value for key, value in {**STABLE_DIFFUSION, **change}.items() if value is not None}
    with pytest.raises(EditError, match=message):
        noise_schedule(config)
