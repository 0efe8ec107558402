"""From a torch module to a graph: capture, and what it honours or refuses."""
