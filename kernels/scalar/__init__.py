"""The scalar language: its functions, its emitters, its exact arithmetic."""
