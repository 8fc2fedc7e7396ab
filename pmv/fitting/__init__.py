"""Fitting to pictures: the one optimisation loop, losses, perceptual and identity distances, metrics."""
