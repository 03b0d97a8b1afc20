"""Base models and adapters, loaded from folders that may come from strangers."""
