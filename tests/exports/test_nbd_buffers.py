"""The receive and send buffers of a connection, and the account of memory, over socket pairs."""

import socket

import pytest

from blockyard.node.exports.nbd.buffers import Budget, Inbox, Outbox


@pytest.fixture
def pair():
    one, two = socket.socketpair()
    one.setblocking(False)
    two.setblocking(False)
    with one, two:
        yield one, two


def test_received_bytes_lie_between_start_and_end(pair):
    inbox = Inbox(100)
    pair[0].send(b"hello")
    assert inbox.receive(pair[1]) == 5
    assert inbox.data[inbox.start : inbox.end] == b"hello"
    assert inbox.waiting


def test_a_message_that_would_pass_the_end_is_moved_to_the_front(pair):
    inbox = Inbox(100)
    pair[0].send(b"x" * 90 + b"head")
    inbox.receive(pair[1])
    inbox.start = 90
    assert inbox.fits(50)
    assert (inbox.start, inbox.end) == (0, 4)
    assert inbox.data[:4] == b"head"


def test_a_message_larger_than_the_buffer_does_not_fit():
    assert not Inbox(100).fits(101)


def test_an_expected_payload_arrives_in_a_buffer_of_its_own_and_takes_no_byte_more(pair):
    inbox = Inbox(100)
    pair[0].send(b"headAB")
    inbox.receive(pair[1])
    inbox.start = 4
    inbox.expect(200)
    pair[0].send(b"C" * 198 + b"next")
    inbox.receive(pair[1])
    assert inbox.taken() == b"AB" + b"C" * 198
    assert not inbox.waiting
    inbox.receive(pair[1])
    assert inbox.data[inbox.start : inbox.end] == b"next"


def test_an_expected_payload_is_not_handed_out_before_it_is_whole(pair):
    inbox = Inbox(100)
    inbox.expect(200)
    pair[0].send(b"C" * 199)
    inbox.receive(pair[1])
    assert inbox.taken() is None
    assert inbox.waiting


def test_the_end_of_the_stream_is_a_receive_of_nothing(pair):
    pair[0].close()
    assert Inbox(100).receive(pair[1]) == 0


def test_pieces_are_sent_in_order_whatever_the_socket_takes(pair):
    outbox = Outbox()
    pieces = [bytes([index % 251]) * (index * 997) for index in range(1, 120)]
    for piece in pieces:
        outbox.push(piece)
    received = bytearray()
    while not outbox.send(pair[0]) or outbox.pending:
        received += pair[1].recv(1 << 20)
    while True:
        try:
            received += pair[1].recv(1 << 20)
        except BlockingIOError:
            break
    assert received == b"".join(pieces)
    assert outbox.pending == 0


def test_a_budget_refuses_what_is_over_it_and_calls_back_when_there_is_room():
    exhausted, resumed = [], []
    budget = Budget(100, lambda: exhausted.append(1))
    assert budget.take(80, lambda: None)

    def resume() -> None:
        resumed.append(1)

    assert not budget.take(30, resume)
    assert not budget.take(30, resume)
    assert budget.contended and exhausted
    budget.give(80)
    assert resumed == [1]
    assert budget.take(30, resume)
    assert not budget.contended


def test_a_budget_lets_one_large_request_through_when_nothing_is_held():
    budget = Budget(100, lambda: None)
    assert budget.take(500, lambda: None)
    budget.give(500)
    assert budget.used == 0


def test_who_is_forgotten_is_not_called_back():
    budget = Budget(100, lambda: None)
    budget.take(100, lambda: None)
    resumed = []

    def resume() -> None:
        resumed.append(1)

    budget.take(1, resume)
    budget.forget(resume)
    budget.give(100)
    assert resumed == []


def test_small_requests_do_not_overtake_a_large_one_that_waits():
    budget = Budget(100, lambda: None)
    assert budget.take(60, lambda: None)
    order = []
    assert not budget.take(90, lambda: order.append("large"))
    assert not budget.take(1, lambda: order.append("small"))
    assert budget.take(0, lambda: order.append("nothing"))
    budget.give(60)
    assert order == ["large", "small"]
