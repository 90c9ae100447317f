"""The chaos matrix: every kind of job, stopped at every durable step, with everything that may go wrong there.

A slice runs here, one cell in `STRIDE`; `make chaos` runs all (BLOCKYARD_CHAOS=1 is the stride then). Each cell
has a seed of its own, which BLOCKYARD_CHAOS_SEED changes.
"""

import os

import pytest

from tests.support import chaos
from tests.support.postgres import postgres

STRIDE = int(os.environ.get("BLOCKYARD_CHAOS", "67"))
SEED = int(os.environ.get("BLOCKYARD_CHAOS_SEED", "1"))
SLICE = chaos.cells()[SEED % STRIDE :: STRIDE]


@pytest.fixture(scope="module")
def server():
    with postgres() as running:
        yield running


def test_the_matrix_is_as_large_as_it_must_be():
    assert len(chaos.cells()) >= 320
    assert len(set(chaos.cells())) == len(chaos.cells())


@pytest.mark.peer("qemu-img")
@pytest.mark.peer("postgres")
@pytest.mark.parametrize(("scene", "place", "disturbance"), SLICE, ids=map("-".join, SLICE))
async def test_a_job_ends_as_asked_whatever_happens(scene, place, disturbance, tmp_path_factory, server):
    folder = tmp_path_factory.mktemp("c")
    reached = await chaos.run(folder, scene, place, disturbance, SEED, server)
    assert reached, "the failpoint was not reached"
