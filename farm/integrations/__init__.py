"""What other programs plug in. Each module imports what it is for, and is imported by its users only."""
