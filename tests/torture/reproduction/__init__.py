"""One seed, one result: over threads, processes, orders, restarts, copies and Pythons."""
