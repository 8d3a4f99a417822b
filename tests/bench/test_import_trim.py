"""What the operator does not load."""

import subprocess
import sys

PROGRAM = """
import sys
from lethe.import_trim import skip_unused_clients
skip_unused_clients()
import lethe.bootstrap
import kubernetes.aio.client
from kubernetes.aio.client.api_client import ApiClient
unwanted = {"requests", "oauthlib", "pykube", "alembic"}
print(*sorted(name for name in sys.modules if name.partition(".")[0] in unwanted and sys.modules[name]))
"""


def test_the_operator_loads_no_client_that_it_does_not_use() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
