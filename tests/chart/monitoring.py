"""The Prometheus operator's kinds, as far as the chart writes them: an API server refuses any other field."""

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}


def _fields(required: str, **fields: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": fields}


def _list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_RULE = _fields(
    "expr",
    alert=TEXT,
    record=TEXT,
    expr={"x-kubernetes-int-or-string": True},
    **{"for": TEXT, "keep_firing_for": TEXT},
    labels=TEXTS,
    annotations=TEXTS,
)
_RELABELING = _fields(
    "",
    **dict.fromkeys(("separator", "targetLabel", "regex", "replacement", "action"), TEXT),
    sourceLabels=_list_of(TEXT),
    modulus={"type": "integer"},
)
_KINDS = {
    "PrometheusRule": _fields(
        "", groups=_list_of(_fields("name", name=TEXT, interval=TEXT, rules=_list_of(_RULE)))
    ),
    "ServiceMonitor": _fields(
        "endpoints selector",
        selector=_fields("", matchLabels=TEXTS),
        namespaceSelector=_fields("", any={"type": "boolean"}, matchNames=_list_of(TEXT)),
        endpoints=_list_of(
            _fields(
                "",
                **dict.fromkeys(("port", "path", "interval", "scrapeTimeout"), TEXT),
                relabelings=_list_of(_RELABELING),
            )
        ),
    ),
}


def definitions() -> list[dict[str, Any]]:
    """Return CustomResourceDefinitions of the two kinds that the chart writes."""
    group = "monitoring.coreos.com"
    return [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{kind.lower()}s.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": f"{kind.lower()}s"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                    }
                ],
            },
        }
        for kind, spec in _KINDS.items()
    ]
