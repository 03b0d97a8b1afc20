"""Adapter layers, how they get into a model, and where its masks act."""
