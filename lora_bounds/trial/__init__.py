"""How a claim is tried, whatever the paper: searches, proofs, controls, statistics, verdicts."""
