"""A prebuild over a farm: what a manifest asks for is looked up, built where it is missing, and locked.

``cli.prebuild`` calls it: ``sources`` and ``changed`` say what the models are, ``planning`` how their entries stand,
``building`` makes what is missing, ``report`` tells CI systems how it ended. It must never know the command line, which
CI system it runs in, or which backend the farm has.

Lock lines belong to recipes (DESIGN, Words), so only the very recipe's engine will do, as in a sweep: what ships is
what the manifest says. An engine that serves every fine-tune is the exception: one that was built with other weights is
locked as it is, since it is refitted before use and not built again. A line that still says what is true is left as it
is, whatever else has been built since.
"""
