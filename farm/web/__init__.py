"""The server: a farm's use cases for clients that have a token, over HTTP (``farm serve``)."""
