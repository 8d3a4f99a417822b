"""A real versitygw: an S3 server whose objects are files of a folder, and so are their versions."""

import hashlib
import os
import shutil
import ssl
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from devtools.builds.versitygw.build import versitygw
from devtools.servers.certificates import write_certificates
from devtools.servers.children import Child, Server, free_port, wait_until

REGION = "us-east-1"


def s3_client(
    endpoint: str,
    access_key: str,
    secret_key: str,
    session_token: str | None = None,
    *,
    service: str = "s3",
    ca_file: Path | None = None,
) -> Any:
    """Return botocore's client, as applications and backup jobs use it."""
    from botocore.config import Config  # noqa: PLC0415 - 25 MB, for tests that need an S3 only
    from botocore.session import Session  # noqa: PLC0415 - the same

    return Session().create_client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        aws_session_token=session_token,
        verify=str(ca_file) if ca_file else None,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


class VersityServer(Server):
    """versitygw in `folder`, an S3 server at `endpoint`; a context manager, ready in a moment.

    Buckets keep versions if `versioned`. With `tls`, `ca_file` is the authority to trust. What lies in it
    stays when it is stopped and started again.
    """

    access_key = "AKIATESTSOFLETHE"
    secret_key = "correct-horse-battery-staple-of-s3"
    region = REGION

    def __init__(self, folder: Path, *, versioned: bool = True, tls: bool = False) -> None:
        self.folder = folder.absolute()
        self.versioned = versioned
        self._root = self.folder / "objects"
        # versitygw wants it absolute and outside of the root.
        self._old = self.folder / "versions"
        port = free_port()
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        pki = self.folder / "pki"
        self.ca_file = pki / "ca.crt" if tls else None
        if tls:
            write_certificates(pki)
        certificate = ["--cert", str(pki / "server.crt"), "--key", str(pki / "server.key")] if tls else []
        versions = ["--versioning-dir", str(self._old)] if versioned else []
        self._server = Child(
            [
                versitygw(),
                "--port",
                f"127.0.0.1:{port}",
                "--region",
                REGION,
                "--quiet",
                "--health",
                "/health",
                *certificate,
                "posix",
                *versions,
                self._root,
            ],
            log=self.folder / "versitygw.log",
            env={"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key},
        )
        self.client = s3_client(self.endpoint, self.access_key, self.secret_key, ca_file=self.ca_file)
        self._modified: dict[tuple[str, str, str], datetime] = {}

    def start(self) -> Self:
        """Start the server and wait until it answers."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._old.mkdir(parents=True, exist_ok=True)
        self._server.start()
        wait_until(self._answers, what="versitygw to answer", children=[self._server])
        return self

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()

    def bucket(self, name: str, *, lock: bool = False) -> str:
        """Create a bucket, with Object Lock if `lock`, and return its name."""
        self.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        if self.versioned:
            self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def put(self, bucket: str, key: str, body: bytes, modified_at: datetime | None = None) -> str:
        """Put an object and return its version's id, `null` in a bucket without versions.

        `modified_at` is what the server shows as its LastModified from then on, in whole seconds; `None`:
        now.
        """
        version: str = self.client.put_object(Bucket=bucket, Key=key, Body=body).get("VersionId", "null")
        if modified_at is not None:
            self._modified[bucket, key, version] = modified_at
        self._date_back(bucket, key)
        return version

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object as an application does: with versions, that adds a delete marker."""
        self.client.delete_object(Bucket=bucket, Key=key)
        self._date_back(bucket, key)

    def remove(self, bucket: str, key: str) -> None:
        """Delete an object with all that was ever kept of it, behind the server's back."""
        (self._root / bucket / key).unlink(missing_ok=True)
        shutil.rmtree(self._versions_of(bucket, key), ignore_errors=True)

    def files(self, bucket: str) -> Mapping[str, bytes]:
        """Return every byte of a bucket's that is on disk, by the file's path.

        Current objects are named by their keys; older versions are below `versions/`, unfinished uploads
        below `.sgwtmp/`.
        """
        found = {str(file.relative_to(self._root / bucket)): file for file in _files(self._root / bucket)}
        old = {f"versions/{file.relative_to(self._old)}": file for file in _files(self._old / bucket)}
        return {name: file.read_bytes() for name, file in (found | old).items()}

    def bytes_of(self, bucket: str, key: str) -> bytes | None:
        """Return all that is on disk of a key: versions and parts of uploads; `None`: nothing at all."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        mine = [
            content for name, content in sorted(self.files(bucket).items()) if name == key or digest in name
        ]
        return b"".join(mine) if mine else None

    def _date_back(self, bucket: str, key: str) -> None:
        # The server shows the modification times of its files, and a version that gets old is copied.
        for (in_bucket, of_key, version), modified_at in self._modified.items():
            if (in_bucket, of_key) != (bucket, key):
                continue
            old = self._versions_of(bucket, key) / version
            file = old if old.exists() else self._root / bucket / key
            if file.exists():
                os.utime(file, times=(modified_at.timestamp(),) * 2)

    def _versions_of(self, bucket: str, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._old / bucket / digest[:2] / digest[2:4] / digest[4:6] / digest

    def _answers(self) -> bool:
        trusted = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        try:
            urllib.request.urlopen(f"{self.endpoint}/health", timeout=10, context=trusted).close()
        except OSError:
            return False
        return True


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]
