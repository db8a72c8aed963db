"""Hand-made pairs of programs that are one, and of programs that are not."""
