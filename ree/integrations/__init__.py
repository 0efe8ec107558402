"""Where other tools take REE in: torch.compile and pytest."""
