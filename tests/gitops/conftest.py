"""The company of the end-to-end tests, as a GitOps tool sees it."""

from tests.e2e.conftest import api, operator, site, start_operator

__all__ = ["api", "operator", "site", "start_operator"]
