"""A sweep's life over a farm: planned, asked for, searched, stopped, taken up again; and what it answers."""
