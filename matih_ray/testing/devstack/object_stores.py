"""Object stores on loopback: S3 by moto, which holds objects in memory and, once asked to, checks
keys, signatures and policies. Times of objects are whole seconds, as with S3 itself."""

from __future__ import annotations

from typing import Any

import boto3

from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION, MotoServer

SECRET_ACCESS_KEY = "a key nobody may see"  # noqa: S105 of an emulator that takes every one


class S3Server(MotoServer):
    """moto's S3."""

    def client(self) -> Any:
        """boto3's low-level client, which the caller closes."""
        return boto3.client(
            "s3",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
        )

    def create_bucket(self, name: str) -> None:
        """An empty bucket."""
        client = self.client()
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        client.close()

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write one object."""
        client = self.client()
        client.put_object(Bucket=bucket, Key=key, Body=data)
        client.close()
