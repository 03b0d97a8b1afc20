"""The linear layer, where everything is exact."""
