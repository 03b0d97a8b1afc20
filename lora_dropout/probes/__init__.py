"""Measured constants of a trained adapter: what the bounds take, with intervals and directions."""
