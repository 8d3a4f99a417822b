"""A real MinIO: an S3 server with every kind of lock. Its build takes minutes: for the second stage only."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from devtools.builds.minio.build import minio
from devtools.servers.children import Child, Server, free_port, wait_until
from devtools.servers.versitygw import REGION, s3_client


class MinioServer(Server):
    """MinIO in `folder`, an S3 server at `endpoint`; a context manager, ready in a second."""

    access_key = "lethe-tests-root"
    secret_key = "correct-horse-battery-staple-of-minio"
    region = REGION

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        address = f"127.0.0.1:{free_port()}"
        self.endpoint = f"http://{address}"
        self._server = Child(
            [
                minio(),
                "server",
                "--quiet",
                "--address",
                address,
                "--console-address",
                f"127.0.0.1:{free_port()}",
                "--certs-dir",
                self.folder / "certs",
                self.folder / "objects",
            ],
            log=self.folder / "minio.log",
            env={
                "MINIO_ROOT_USER": self.access_key,
                "MINIO_ROOT_PASSWORD": self.secret_key,
                "MINIO_UPDATE": "off",
                "HOME": str(self.folder),
            },
        )
        self.client = s3_client(self.endpoint, self.access_key, self.secret_key)

    def start(self) -> Self:
        """Start the server and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._server.start()
        wait_until(self._answers, what="MinIO to answer", children=[self._server])
        return self

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()

    def bucket(self, name: str, *, versioned: bool = True, lock: bool = False) -> str:
        """Create a bucket and return its name; `lock`: with Object Lock, which keeps versions, too."""
        self.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        if versioned:
            self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def restricted(self, actions: Sequence[str]) -> tuple[str, str, str]:
        """Return access key, secret key and session token of somebody who may do `actions` only."""
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": ["arn:aws:s3:::*"]}
        sts: Any = s3_client(self.endpoint, self.access_key, self.secret_key, service="sts")
        given = sts.assume_role(
            RoleArn="arn:aws:iam::000000000000:role/tests",
            RoleSessionName="tests",
            Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )["Credentials"]
        return given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]

    def _answers(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as in s3_client

        try:
            self.client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True
