"""Real servers for tests, the demo and the benchmarks: each on free ports, in a folder of its own.

Each is a context manager, stops cleanly when it is left, and dies with the process that started it.
"""

from devtools.servers.children import CommandFailed, ServerFailed
from devtools.servers.controlplane import ControlPlane
from devtools.servers.mail import MailServer
from devtools.servers.minio import MinioServer
from devtools.servers.pgbouncer import PgBouncer
from devtools.servers.postgres import PostgresServer
from devtools.servers.tryton import TrytonRefused, TrytonServer
from devtools.servers.versitygw import VersityServer

__all__ = [
    "CommandFailed",
    "ControlPlane",
    "MailServer",
    "MinioServer",
    "PgBouncer",
    "PostgresServer",
    "ServerFailed",
    "TrytonRefused",
    "TrytonServer",
    "VersityServer",
]
