"""How a figure becomes files: its parts, its style, the report."""
