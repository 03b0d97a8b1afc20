"""The predicted trends T1 to T3, on models whose risks are exact."""
