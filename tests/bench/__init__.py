"""The benchmarks: ``make bench``. Each row is a ratio against a peer or a limit, measured in one run."""
