"""What a prebuild's two files say: the manifest, what is to be there; the lock file, which engines are. Pure, but for
the reading and writing of the two.

``entries`` and ``lock`` are the two as values, ``manifest`` and ``lock_file`` the two on disk. ``prebuilding`` goes by
both; ``pulling``, pins and promotions go by lock lines alone. It must never know what is built, where models come from,
or who asks: no index, no store, no farm.
"""
