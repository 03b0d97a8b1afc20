"""Many runs: where they are computed, kept, and compared with a repetition."""
