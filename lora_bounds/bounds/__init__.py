"""Bounds on risk and stability, from the law of the masks to their comparison side by side."""
