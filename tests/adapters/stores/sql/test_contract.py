import pytest

from tests.adapters.stores.sql.conftest import Site
from tests.contracts.journaled_contract import JournaledContract, JournaledWorld
from tests.contracts.store_contract import StoreContract, World


class TestSqlStore(StoreContract):
    @pytest.fixture
    def world(self, site: Site) -> World:
        return site


class TestJournalOfSqlStore(JournaledContract):
    @pytest.fixture
    def world(self, site: Site) -> JournaledWorld:
        return site
