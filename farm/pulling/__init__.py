"""Engines by lock line, onto this machine: which lines a target means, and how their files are fetched and laid out.

``Farm.pull`` and ``cli.pulling`` call it, through what ``wiring`` opens for them. It must never know the index
or keys: a pod that pulls has a lock file and a store, no database, no TensorRT and no torch.
"""
