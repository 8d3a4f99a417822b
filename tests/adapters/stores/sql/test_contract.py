import pytest

from tests.adapters.stores.sql.conftest import Site
from tests.contracts.store_contract import StoreContract, World


class TestSqlStore(StoreContract):
    @pytest.fixture
    def world(self, site: Site) -> World:
        return site
