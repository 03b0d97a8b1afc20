"""The N-instance loss, the penalty, and the loop that minimises them."""
