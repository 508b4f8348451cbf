"""Graphs: edges as they come, and the graphs that windows of them make."""
