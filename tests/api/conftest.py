"""An API server that serves the generated CRDs."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import yaml

from lethe.api.crd import render
from tests.api.apiserver import RESOURCES, ApiServer

if TYPE_CHECKING:
    from tests.servers.controlplane import ControlPlane

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until `holds`; the bound is there to end a run that is broken, it is no claim about speed."""
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"it never came true that {what}")


@pytest.fixture(scope="session")
def apiserver(control_plane: "ControlPlane") -> ApiServer:
    server = ApiServer(control_plane.url, control_plane.admin_token)
    for text in render().values():
        definition = yaml.safe_load(text)
        answer = server.apply(definition, DEFINITIONS)
        assert answer, answer.text
        _await_served(server, definition["spec"]["names"]["plural"])
    return server


def _await_served(server: ApiServer, plural: str) -> None:
    eventually(lambda: bool(server.send("GET", f"{RESOURCES}/{plural}?limit=1")), f"{plural} are served")
