"""What the node promises to the machine that it runs on."""

from devtools.builds.go import kubernetes_version
from devtools.cluster.build import MODULE as CLUSTER
from devtools.node.build import MODULE, PROGRAMS


def test_the_node_is_of_the_version_of_its_api_server() -> None:
    assert kubernetes_version(MODULE) == kubernetes_version(CLUSTER)


def test_go_mod_names_the_programs_that_are_built() -> None:
    text = (MODULE / "go.mod").read_text()
    assert all(f"\tk8s.io/kubernetes/cmd/{program}\n" in text for program in PROGRAMS)
