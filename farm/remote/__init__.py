"""A farm's index and store behind a server: what a client needs of ``farm.index`` and ``farm.store``, over HTTP."""
