"""Models that turn a text into a vector: sentence encoders."""
