"""How long each side of a comparison of times has its turn."""

# Seconds. Idle workers of torch's OpenMP spin for some 20 ms, and take a core from the other side
# meanwhile: short turns would measure that.
TURN = 0.3
