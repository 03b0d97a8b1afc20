"""Bounds, exact results and verdicts for LoRA Dropout (arXiv 2404.09610); needs no torch."""
