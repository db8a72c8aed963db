"""What a sweep asks for: its grid, its file, what it is after and how it searches. Pure."""
