"""The test-time ensemble: Eq. 8, Thm 4.5, A.3, T4, and what finite N does."""
