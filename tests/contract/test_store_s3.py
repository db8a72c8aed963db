"""The store in S3 keeps the contract, on a real server."""

from __future__ import annotations

import uuid

import pytest
from store_contract import Spoil, StoreContract

from farm.blobs.s3 import S3Store, open_s3
from tests.support.seaweed import Seaweed

BUCKET = "farm-tests"


def key_of(store: S3Store, digest: str) -> str:
    digits = digest.removeprefix("sha256:")
    return f"{store._prefix}sha256/{digits[:2]}/{digits}"


@pytest.fixture
def store(s3: Seaweed) -> S3Store:
    return open_s3(f"s3://{BUCKET}/{uuid.uuid4().hex}/a prefix/ü", s3.endpoint)


class TestS3Store(StoreContract):
    @pytest.fixture
    def spoil(self, store: S3Store, s3: Seaweed) -> Spoil:
        def spoil(digest: str, data: bytes) -> None:
            s3.client().put_object(Bucket=BUCKET, Key=key_of(store, digest), Body=data)

        return spoil
