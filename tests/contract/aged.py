"""Old objects in S3: nobody can set a server's times, so its answers about some keys are made older on their way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from farm.blobs.s3_bucket import Bucket

MADE_NEW = frozenset({"put_object", "copy_object", "complete_multipart_upload", "delete_object"})


def aged_objects(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], None]:
    """Makes the object of a key so many seconds old, until it is written again."""
    aged: dict[str, timedelta] = {}
    call = Bucket.call

    def older(self: Bucket, operation: str, **arguments: Any) -> dict[str, Any]:
        answer = call(self, operation, **arguments)
        if operation in MADE_NEW:
            aged.pop(arguments["Key"], None)
        for item in [*answer.get("Contents", ()), *([answer] if operation == "head_object" else ())]:
            item["LastModified"] -= aged.get(item.get("Key") or arguments.get("Key", ""), timedelta())
        return answer

    monkeypatch.setattr(Bucket, "call", older)
    return lambda key, seconds: aged.update({key: timedelta(seconds=seconds)})
