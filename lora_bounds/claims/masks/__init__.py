"""The masks and the penalty: Eqs. 2 and 9 to 11, the remark on p -> 1, and T5."""
