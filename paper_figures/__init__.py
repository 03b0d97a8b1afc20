"""Figures and tables of arXiv 2404.09610, regenerated: `python -m paper_figures`."""
