"""Passes: graph to graph, legal before and after, never changing a bit of any output."""
