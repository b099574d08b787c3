from tests.node_parts import *
@pytest.fixture(scope="session")
def film(tmp_path_factory): return published_once(tmp_path_factory)
async def test_x(film, tmp_path):
    async with open_house(tmp_path, film) as house:
        await house.assert_serves(film)
        async with stranger(house.edge.ready.address) as s:
            await s.join(house, film)
