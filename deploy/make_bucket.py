"""Make the bucket that ``FARM_STORE_URL`` names, where it is not yet. Repeating it changes nothing."""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def main() -> str:
    """Why there is no bucket; empty when there is one."""
    url, endpoint = os.environ.get("FARM_STORE_URL", ""), os.environ.get("FARM_S3_ENDPOINT_URL") or None
    parts = urlsplit(url)
    if parts.scheme != "s3":
        return ""
    try:
        made = ensure_bucket(parts.netloc, endpoint)
    except (BotoCoreError, ClientError) as error:
        return f"the bucket '{parts.netloc}' at {endpoint or 'AWS'} could not be made: {error}"
    print(f"the bucket '{parts.netloc}' {'has been made' if made else 'is there'}")
    return ""


def ensure_bucket(name: str, endpoint: str | None) -> bool:
    """Whether it had to be made. Several may do so at once: one makes it, for the others it is there."""
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name=os.environ.get("AWS_DEFAULT_REGION") or "us-east-1")
    try:
        s3.head_bucket(Bucket=name)
        return False
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
    try:
        s3.create_bucket(Bucket=name)
    except (s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main() or None)
