"""Blob stores: one file per backend of ``farm.store.BlobStore``."""
