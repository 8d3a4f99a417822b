"""The CustomResourceDefinitions, generated from the models.

`python -m lethe.api.crd DIR` writes them, `python -m lethe.api.crd --check DIR` says which differ.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from lethe.api.model import GROUP, VERSION, ApiModel, Column, Resource
from lethe.api.rules import VALIDATIONS
from lethe.api.structural import first_paragraph, structural_schema
from lethe.api.v1alpha1 import KINDS
from lethe.api.v1alpha1.conditions import Status

HEADER = "# Generated from the models in operator/lethe/api by `make crds`. Change those, not this file.\n"


def render() -> dict[str, str]:
    """Return the text of each CRD under the name of its file; the same models give the same bytes.

    Raises `NotStructural` if a model says what a CRD can't.
    """
    return {
        f"{GROUP}_{kind.definition.plural}.yaml": HEADER
        + yaml.dump(definition(kind), Dumper=_WithoutAliases, sort_keys=False, width=110, allow_unicode=True)
        for kind in KINDS
    }


def drift(directory: Path) -> list[str]:
    """Return the names of the files in `directory` that are missing, differ, or belong to no kind."""
    rendered = render()
    found = {path.name: path.read_text(encoding="utf-8") for path in directory.glob(f"{GROUP}_*.yaml")}
    return sorted(name for name in rendered.keys() | found.keys() if rendered.get(name) != found.get(name))


def definition(kind: type[Resource]) -> dict[str, Any]:
    """Return the CustomResourceDefinition of `kind`.

    Raises `NotStructural` if its models say what a CRD can't.
    """
    said = kind.definition
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{said.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": said.kind,
                "listKind": f"{said.kind}List",
                "plural": said.plural,
                "singular": said.kind.lower(),
                "shortNames": [said.short_name],
                "categories": ["lethe"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    **(
                        {"selectableFields": [{"jsonPath": path} for path in said.selectable]}
                        if said.selectable
                        else {}
                    ),
                    "additionalPrinterColumns": [_column(column) for column in said.columns],
                    "schema": {"openAPIV3Schema": _object_schema(kind)},
                }
            ],
        },
    }


def _object_schema(kind: type[Resource]) -> dict[str, Any]:
    said = kind.definition
    # The API server checks metadata itself; a schema may only narrow the name.
    metadata: dict[str, Any] = {"type": "object"}
    if said.name_max_length is not None:
        metadata["properties"] = {"name": {"type": "string", "maxLength": said.name_max_length}}
    status = cast("type[Status]", kind.model_fields["status"].annotation)
    return {
        "description": first_paragraph(kind.__doc__ or ""),
        "type": "object",
        **({VALIDATIONS: [rule.schema() for rule in said.rules]} if said.rules else {}),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": metadata,
            "spec": structural_schema(cast("type[ApiModel]", kind.model_fields["spec"].annotation)),
            # With no status at all, kstatus takes an object that nobody has looked at for one that is done.
            "status": {**structural_schema(status), "default": status.unseen().wire()},
        },
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.json_path,
        **({"description": column.description} if column.description else {}),
        **({"priority": column.priority} if column.priority else {}),
    }


class _WithoutAliases(yaml.SafeDumper):
    """Writes everything out: anchors are hard to read in a diff."""

    def ignore_aliases(self, _node: Any) -> bool:
        return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CRDs to a directory, or with `--check` name those that differ. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lethe.api.crd", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    parser.add_argument("directory", type=Path)
    chosen = parser.parse_args(arguments)
    directory: Path = chosen.directory
    if chosen.check:
        stale = drift(directory)
        for name in stale:
            sys.stderr.write(f"{directory / name} is not what the models say; run `make crds`\n")
        return 1 if stale else 0
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (directory / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
