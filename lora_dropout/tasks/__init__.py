"""Real data and small models, one file a task family."""
