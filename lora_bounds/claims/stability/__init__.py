"""Stability: Def. 4.1, Lemma A.1, Prop. 4.2, and its repair."""
