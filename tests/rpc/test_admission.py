"""One kind of call cannot keep another out."""

import asyncio

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from blockyard.base.errors import LimitReached
from blockyard.rpc.admission import Admission, CallClass, Limits, classify
from tests.support.echo import DATA_NAME, Stub, text


@pytest.fixture
def limits() -> Limits:
    return Limits(control=1, data=2, watch=1)


@pytest.mark.parametrize(
    ("method", "streams", "expected"),
    [
        ("/grpc.health.v1.Health/Check", False, CallClass.SYSTEM),
        ("/grpc.health.v1.Health/Watch", True, CallClass.WATCH),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", True, CallClass.WATCH),
        ("/blockyard.v1.NodeService/GetNode", False, CallClass.CONTROL),
        ("/blockyard.v1.NodeService/WatchNodes", True, CallClass.WATCH),
        ("/blockyard.v1.DataService/Flush", False, CallClass.DATA),
        ("/blockyard.v1.CopyService/RunCopy", True, CallClass.DATA),
    ],
)
def test_a_method_has_its_class(method, streams, expected) -> None:
    assert classify(method, streams) is expected


async def test_control_and_health_get_in_when_data_is_saturated(served) -> None:
    data = Stub(served.channel, DATA_NAME)
    held = [data.both() for _ in range(2)]
    for call in held:
        await call.write(text("a"))
        await call.read()
    with pytest.raises(LimitReached) as caught:
        await data.unary(text("one too many"))
    assert (caught.value.what, caught.value.limit) == ("data calls at once", 2)
    assert (await served.stub.unary(text("control"))).value == "control"
    health = health_pb2_grpc.HealthStub(served.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    for call in held:
        await call.done_writing()
        assert [reply async for reply in call] == []
    assert (await data.unary(text("room again"))).value == "room again"


async def test_watches_have_slots_of_their_own(served) -> None:
    watch = served.stub.watch(text("one wait"))
    assert (await watch.read()).value == "one"
    with pytest.raises(LimitReached):
        await served.stub.watch(text("two")).read()
    assert (await served.stub.unary(text("control"))).value == "control"
    watch.cancel()


async def test_watchers_of_health_cannot_keep_a_check_of_health_out(served) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    with pytest.raises(LimitReached):
        await health.Watch(health_pb2.HealthCheckRequest()).read()
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_a_refused_call_is_counted(served) -> None:
    served.running.admission.slots[CallClass.CONTROL].limit = 0
    with pytest.raises(LimitReached):
        await served.stub.unary(text("x"))
    assert served.running.admission.slots[CallClass.CONTROL].refused == 1


async def test_a_stop_ends_a_watch_after_the_reply_that_it_is_sending_and_not_before() -> None:
    admission, sent, steps = Admission(Limits()), asyncio.Event(), list[str]()

    async def watch() -> None:
        with admission.slots[CallClass.WATCH].place():
            with admission.sending():
                await sent.wait()
            steps.append("sent")
            await asyncio.Event().wait()

    task = asyncio.create_task(watch())
    while not admission.writing:
        await asyncio.sleep(0)
    admission.end_watches()
    sent.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["sent"]
