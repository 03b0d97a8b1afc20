"""The figures that the paper does not have, one a file."""
