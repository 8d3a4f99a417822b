"""Real servers for tests, the demo and the benchmarks: each on free ports, in a folder of its own.

Each is a context manager, stops cleanly when it is left, and dies with the process that started it.
"""

from tests.servers.children import CommandFailed, ServerFailed
from tests.servers.controlplane import ControlPlane
from tests.servers.mail import MailServer
from tests.servers.minio import MinioServer
from tests.servers.postgres import PostgresServer
from tests.servers.tryton import TrytonRefused, TrytonServer
from tests.servers.versitygw import VersityServer

__all__ = [
    "CommandFailed",
    "ControlPlane",
    "MailServer",
    "MinioServer",
    "PostgresServer",
    "ServerFailed",
    "TrytonRefused",
    "TrytonServer",
    "VersityServer",
]
