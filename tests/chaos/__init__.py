"""The chaos suite: a fleet of real processes on real servers, tortured by a seeded plan, then audited.

``python -m tests.chaos --seeds 20`` runs it at length; ``make test`` runs each fault alone and all at once, briefly.
"""
