"""Generalization: Lemma 4.3, Thm 4.4, and what they cost."""
