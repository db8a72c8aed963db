"""What several suites need: a worker whose builds cost nothing, real servers, faults between the two."""
