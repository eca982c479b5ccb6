"""Trains the four networks of the miniature on two cores: VAE, CLIP pair, detector, U-Net."""
