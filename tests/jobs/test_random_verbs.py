"""Random verbs, errors, drops and guest writes against one mirror: every move is in the table, no write is lost."""

import asyncio
import os
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from blockyard.base.errors import JobVerbNotAllowed
from blockyard.jobs.copying.policy import OnError
from blockyard.jobs.lifecycle import table
from blockyard.jobs.lifecycle.spec import JobOutcome
from blockyard.jobs.lifecycle.table import JobState, JobVerb
from blockyard.jobs.node.port import CopyMode, CopySide, FinishAction, SyncMode
from tests.support.living_jobs import Scene
from tests.support.small_node import GRANULE

GRANULES = 16


class RandomLife(RuleBasedStateMachine):
    """The model is the data: what the guest wrote, and where it must be in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    @initialize(
        finalize=st.booleans(),
        mode=st.sampled_from(CopyMode),
        sync=st.sampled_from((SyncMode.FULL, SyncMode.TOP)),
        policy=st.sampled_from(OnError),
    )
    def begin(self, finalize, mode, sync, policy):
        self.scene = Scene()
        self.scene.node.bytes_per_second = 8 * GRANULE
        self.scene.node.disk("a", granules=GRANULES, fill=b"a")
        self.scene.node.disk("t", granules=GRANULES)
        self.scene.node.guest("vm", "a")
        self.guest_sees = bytearray(self.scene.node.disks["a"].content)
        options = {"on_source_error": policy, "on_target_error": policy, "copy_mode": mode, "sync": sync}
        nodes = {"node_name": "a", "target_node_name": "t", "buf_size_bytes": 64 * 1024}
        self.run(self.scene.start("mirror", **nodes, **options, auto_finalize=finalize))

    @property
    def alive(self) -> bool:
        return "job" in self.scene.manager.present()

    def say(self, verb: JobVerb, call) -> None:
        """A verb is refused exactly when the job does not list it."""
        self.run(self._say(verb, call))

    async def _say(self, verb: JobVerb, call) -> None:
        # Nothing may run between the look and the verb.
        if not self.alive:
            return
        allowed = self.scene.view().allowed_verbs
        cancelled = self.scene.manager._runners["job"].job.cancel_requested
        try:
            await call()
        except JobVerbNotAllowed:
            assert verb not in allowed or (verb is JobVerb.COMPLETE and cancelled)
        else:
            assert verb in allowed

    @rule()
    def pause(self):
        self.say(JobVerb.PAUSE, lambda: self.scene.manager.pause("job"))

    @rule()
    def resume(self):
        self.say(JobVerb.RESUME, lambda: self.scene.manager.resume("job"))

    @rule(force=st.booleans(), really=st.integers(0, 5))
    def cancel(self, force, really):
        if really == 0:
            self.say(JobVerb.CANCEL, lambda: self.scene.manager.cancel("job", force))

    @rule(action=st.sampled_from((FinishAction.PIVOT, FinishAction.DETACH)))
    def complete(self, action):
        self.say(JobVerb.COMPLETE, lambda: self.scene.manager.complete("job", action))

    @rule()
    def finalize(self):
        self.say(JobVerb.FINALIZE, lambda: self.scene.manager.finalize("job"))

    @rule(speed=st.sampled_from((0, GRANULE, 1 << 30)))
    def set_speed(self, speed):
        self.say(JobVerb.SET_SPEED, lambda: self.scene.manager.set_speed("job", speed))

    @rule(granule=st.integers(0, GRANULES - 1), value=st.integers(0, 255))
    def guest_writes(self, granule, value):
        content = bytes([value]) * GRANULE
        self.scene.node.guest_write("vm", granule, content)
        self.guest_sees[granule * GRANULE : (granule + 1) * GRANULE] = content

    @rule(seconds=st.sampled_from((0.0, 0.05, 0.3, 2.0)))
    def time_passes(self, seconds):
        self.run(self.scene.pass_time(seconds))

    @rule()
    def the_stream_drops(self):
        self.scene.node.drop_streams()

    @rule(side=st.sampled_from(CopySide), granule=st.integers(0, GRANULES - 1), full=st.booleans())
    def copying_fails_once(self, side, granule, full):
        self.scene.node.fail(side, range(granule, granule + 1), "NO_SPACE" if full else "IO_ERROR")

    @rule(seconds=st.sampled_from((0.2, 3.0)))
    def the_node_goes_away_for_a_while(self, seconds):
        self.scene.node.go_away()
        self.run(self.scene.pass_time(seconds))
        self.scene.node.come_back()

    @precondition(lambda self: self.alive)
    @invariant()
    def states_follow_the_table(self):
        states = [JobState.UNDEFINED, *self.scene.seen_states()]
        assert all(table.may_follow(*pair) for pair in pairwise(states)), states

    @invariant()
    def the_guest_reads_what_it_wrote(self):
        assert self.scene.node.disks[self.scene.node.guests["vm"]].content == bytes(self.guest_sees)

    @invariant()
    def an_ended_job_has_ended_its_session(self):
        if not self.alive or self.scene.view().state is not JobState.CONCLUDED:
            return
        view, live = self.scene.view(), self.scene.node.sessions["job"]
        wanted = (FinishAction.PIVOT, FinishAction.DETACH)
        assert (live.finished in wanted) is (view.outcome is JobOutcome.SUCCEEDED)
        moved = self.scene.node.guests["vm"] == "t"
        assert moved is (live.finished is FinishAction.PIVOT)

    def teardown(self):
        if hasattr(self, "scene"):
            self.run(self.scene.stop())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


RandomLife.TestCase.settings = settings(
    max_examples=int(os.environ.get("BLOCKYARD_FUZZ_EXAMPLES", "40")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.fuzz
class TestRandomLife(RandomLife.TestCase):
    """Picked up by pytest under this name."""
