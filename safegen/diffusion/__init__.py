"""Stable Diffusion itself: checkpoints, noise schedule, latents, losses, sampling, deltas."""
