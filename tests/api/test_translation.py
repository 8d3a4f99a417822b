"""What manifests say, in the domain's terms."""

from datetime import timedelta
from typing import Any

import pytest

from lethe.api.parse import parse
from lethe.api.translation import source_description
from lethe.api.v1alpha1.backupsource import BACKENDS, BackupSource
from lethe.domain.periods import Period
from lethe.workflows.backup.scan import SourceDescription

S3 = {
    "endpoint": "https://s3.example.org",
    "bucket": "backups",
    "prefix": "site/",
    "name": "{takenAt:%Y%m%d}",
    "credentialsSecretRef": {"name": "s3"},
}
DIRECTORY = {"path": "/backups/site", "name": "{takenAt:%Y%m%d}"}
RESTIC = {"repository": "s3:https://s3.example.org/restic", "credentialsSecretRef": {"name": "restic"}}
PLUGIN = {"name": "tapes", "config": {"drive": "1"}}


def described(kind: str, spec: dict[str, Any]) -> SourceDescription:
    manifest = {
        "apiVersion": "lethe.dev/v1alpha1",
        "kind": "BackupSource",
        "metadata": {"name": "nightly", "namespace": "shop"},
        "spec": {"stores": ["site"], kind: spec},
    }
    return source_description(parse(BackupSource, manifest), Period(6, 0), timedelta(0))


@pytest.mark.parametrize(
    ("kind", "spec", "edit"),
    [
        ("s3", S3, {"endpoint": "https://s3.example.com"}),
        ("s3", S3, {"endpoint": "https://s3.example.org:9000"}),
        ("s3", S3, {"endpoint": None}),
        ("s3", S3, {"bucket": "backups-2"}),
        ("s3", S3, {"prefix": "site"}),
        ("s3", S3, {"prefix": None}),
        ("directory", DIRECTORY, {"path": "/backups/crm"}),
        ("restic", RESTIC, {"repository": "s3:https://s3.example.org/Restic"}),
        ("plugin", PLUGIN, {"name": "disks"}),
        ("plugin", PLUGIN, {"config": {"drive": "2"}}),
    ],
)
def test_a_source_that_looks_elsewhere_is_another_source(
    kind: str, spec: dict[str, Any], edit: dict[str, Any]
) -> None:
    assert described(kind, {**spec, **edit}).known_as != described(kind, spec).known_as


@pytest.mark.parametrize(
    ("kind", "spec", "edit"),
    [
        ("s3", S3, {"endpoint": "http://S3.example.org:80/"}),
        ("s3", S3, {"endpoint": "https://s3.example.org:443", "region": "eu-central-1"}),
        ("s3", S3, {"credentialsSecretRef": {"name": "rotated"}}),
        ("s3", S3, {"name": "*-{takenAt:%Y%m%d}"}),
        ("directory", DIRECTORY, {"path": "/backups//site/"}),
        ("directory", DIRECTORY, {"name": "*-{takenAt:%Y%m%d}"}),
        ("restic", RESTIC, {"repository": "s3:http://s3.example.org/restic/"}),
        ("restic", RESTIC, {"host": "db-1", "paths": ["/data"]}),
    ],
)
def test_a_source_that_reaches_or_reads_its_place_otherwise_stays_the_same(
    kind: str, spec: dict[str, Any], edit: dict[str, Any]
) -> None:
    assert described(kind, {**spec, **edit}).known_as == described(kind, spec).known_as


EDITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "directory": (DIRECTORY, {"path": "/backups/crm"}),
    "s3": (S3, {"bucket": "backups-2"}),
    "restic": (RESTIC, {"repository": "rest:https://h/"}),
    "velero": ({"schedule": "nightly"}, {"schedule": "weekly"}),
    "cloudNativePG": ({"cluster": "site"}, {"cluster": "crm"}),
    "volumeSnapshots": ({"persistentVolumeClaim": "site"}, {"persistentVolumeClaim": "crm"}),
    "plugin": (PLUGIN, {"name": "disks"}),
}


def test_of_every_backend_it_is_told_where_it_looks() -> None:
    assert set(EDITS) == set(BACKENDS)
    before = {kind: described(kind, spec).known_as for kind, (spec, _) in EDITS.items()}
    after = {kind: described(kind, {**spec, **edit}).known_as for kind, (spec, edit) in EDITS.items()}
    assert len({*before.values(), *after.values()}) == 2 * len(BACKENDS)


def test_a_plugin_that_is_given_another_secret_looks_in_the_same_place() -> None:
    rotated = {**PLUGIN, "credentialsSecretRef": {"name": "rotated"}}
    assert described("plugin", rotated).known_as == described("plugin", PLUGIN).known_as
