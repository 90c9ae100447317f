"""The handshake without I/O: every option, in every order that a stranger may try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.base.errors import ProtocolViolation
from blockyard.node.exports.nbd.export import Export, ExportConfig
from blockyard.node.exports.nbd.negotiation import Negotiation, State
from blockyard.node.formats import nbd
from tests.support.export_source import MemorySource

FIXED = nbd.CLIENT_FLAGS.pack(nbd.FLAG_C_FIXED_NEWSTYLE)


class Shelf:
    """A catalogue of two exports."""

    def __init__(self) -> None:
        source = MemorySource(1 << 20)
        source.add_bitmap("b0")
        config = ExportConfig(
            "disk", "the first", writable=True, bitmaps=("b0",), allocation_depth=True, max_connections=1
        )
        self.exports = {"disk": Export(config, source), "": Export(ExportConfig(""), MemorySource(512))}

    def find(self, name: str) -> Export | None:
        return self.exports.get(name)

    def listed(self) -> list[Export]:
        return list(self.exports.values())


class Talk:
    """A negotiation and what it said."""

    def __init__(self, client_flags: bytes = FIXED, option_bytes: int = 65536) -> None:
        self.shelf = Shelf()
        self.machine = Negotiation(self.shelf, option_bytes)
        self.machine.output.clear()
        self.feed(client_flags)

    def feed(self, data: bytes) -> int:
        return self.machine.receive(memoryview(data))

    def option(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        message = nbd.option(option, data)
        assert self.feed(message) == len(message)
        replies, output = [], bytes(self.machine.output)
        self.machine.output.clear()
        while output:
            head = nbd.parse_option_reply(output[:20])
            assert head.option == option
            replies.append((head.kind, output[20 : 20 + head.length]))
            output = output[20 + head.length :]
        return replies

    def kinds(self, option: int, data: bytes = b"") -> list[int]:
        return [kind for kind, _ in self.option(option, data)]


def go(name: str, *wanted: int) -> bytes:
    return nbd.info_query(nbd.InfoQuery(name, wanted))


def meta(name: str, *queries: str) -> bytes:
    return nbd.meta_query(nbd.MetaQuery(name, queries))


def test_the_greeting_offers_fixed_newstyle_and_no_zeroes():
    output = bytes(Negotiation(Shelf(), 65536).output)
    assert nbd.parse_greeting(output) == nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES


def test_unknown_client_flags_end_the_connection():
    with pytest.raises(ProtocolViolation, match="client flags"):
        Talk(nbd.CLIENT_FLAGS.pack(1 << 5))


def test_go_tells_size_and_flags_and_enters_transmission():
    talk = Talk()
    replies = talk.option(nbd.OPT_GO, go("disk"))
    assert [kind for kind, _ in replies] == [nbd.REP_INFO, nbd.REP_ACK]
    size, flags = nbd.parse_info_export(replies[0][1])
    assert size == 1 << 20
    assert flags & nbd.FLAG_CAN_MULTI_CONN and not flags & (nbd.FLAG_READ_ONLY | nbd.FLAG_SEND_DF)
    assert talk.machine.state is State.CHOSEN
    assert not talk.machine.session.structured


def test_info_tells_the_same_and_stays_in_negotiation():
    talk = Talk()
    wanted = (nbd.INFO_NAME, nbd.INFO_DESCRIPTION, nbd.INFO_BLOCK_SIZE, 77)
    info = talk.option(nbd.OPT_INFO, go("disk", *wanted))
    assert talk.machine.state is State.OPTIONS
    assert talk.option(nbd.OPT_GO, go("disk", *wanted)) == info
    data = [payload for kind, payload in info if kind == nbd.REP_INFO]
    assert data[1:] == [b"\0\1disk", b"\0\2the first", nbd.info_block_size(nbd.BlockSize(1, 4096, 32 << 20))]


def test_a_read_only_export_says_so_and_offers_no_writes():
    _, flags = nbd.parse_info_export(Talk().option(nbd.OPT_GO, go(""))[0][1])
    assert flags & nbd.FLAG_READ_ONLY
    assert not flags & (nbd.FLAG_SEND_TRIM | nbd.FLAG_SEND_WRITE_ZEROES | nbd.FLAG_SEND_FAST_ZERO)


def test_go_for_an_unknown_export_is_refused_and_the_client_may_try_again():
    talk = Talk()
    replies = talk.option(nbd.OPT_GO, go("nope"))
    assert replies == [(nbd.REP_ERR_UNKNOWN, b"no export named 'nope'")]
    assert talk.kinds(nbd.OPT_GO, go("disk"))[-1] == nbd.REP_ACK


def test_go_for_a_full_export_is_refused_by_policy():
    talk = Talk()
    talk.shelf.exports["disk"].clients.add(object())
    assert talk.kinds(nbd.OPT_GO, go("disk")) == [nbd.REP_ERR_POLICY]


def test_a_name_of_4096_bytes_gives_a_short_error_text():
    [(kind, text)] = Talk().option(nbd.OPT_GO, go("n" * 4096))
    assert kind == nbd.REP_ERR_UNKNOWN
    assert len(text) < 200


def test_a_longer_name_is_invalid():
    assert Talk().kinds(nbd.OPT_GO, go("n" * 4097)) == [nbd.REP_ERR_INVALID]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff\xff" + b"disk\0\0",
        b"\0\0\0\4disk",
        b"\0\0\0\4disk\xff\xff",
        b"\0\0\0\4disk\0\0trailing",
        b"\0\0\0\4di\xffk\0\0",
    ],
)
def test_malformed_go_data_is_invalid_and_nothing_else_happens(data):
    talk = Talk()
    assert talk.kinds(nbd.OPT_GO, data) == [nbd.REP_ERR_INVALID]
    assert talk.machine.state is State.OPTIONS


def test_list_names_every_export_with_its_description():
    replies = Talk().option(nbd.OPT_LIST)
    entries = [nbd.parse_server_entry(data) for kind, data in replies if kind == nbd.REP_SERVER]
    assert entries == [("disk", "the first"), ("", "")]
    assert replies[-1] == (nbd.REP_ACK, b"")


@pytest.mark.parametrize("option", [nbd.OPT_LIST, nbd.OPT_STRUCTURED_REPLY, nbd.OPT_STARTTLS])
def test_options_without_data_refuse_data(option):
    assert Talk().kinds(option, b"x") == [nbd.REP_ERR_INVALID]


def test_starttls_is_refused_by_policy():
    assert Talk().kinds(nbd.OPT_STARTTLS) == [nbd.REP_ERR_POLICY]


@pytest.mark.parametrize("option", [nbd.OPT_PEEK_EXPORT, 11, 0, 0xFFFFFFFF])
def test_unknown_options_are_unsupported_and_the_client_may_go_on(option):
    talk = Talk()
    assert talk.kinds(option, b"some data") == [nbd.REP_ERR_UNSUP]
    assert talk.kinds(nbd.OPT_GO, go("disk"))[-1] == nbd.REP_ACK


def test_abort_is_acknowledged_and_ends_the_talk():
    talk = Talk()
    assert talk.kinds(nbd.OPT_ABORT, b"ignored") == [nbd.REP_ACK]
    assert talk.machine.state is State.ENDED


def test_structured_replies_are_remembered_and_offer_df():
    talk = Talk()
    assert talk.kinds(nbd.OPT_STRUCTURED_REPLY) == [nbd.REP_ACK]
    _, flags = nbd.parse_info_export(talk.option(nbd.OPT_GO, go("disk"))[0][1])
    assert flags & nbd.FLAG_SEND_DF
    assert talk.machine.session.structured


def test_listing_contexts_without_a_query_lists_all_of_the_export():
    names = [
        nbd.parse_meta_context(data)[1] for _, data in Talk().option(nbd.OPT_LIST_META_CONTEXT, meta("disk"))[:-1]
    ]
    assert names == ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("base:", ["base:allocation"]),
        ("qemu:", ["qemu:allocation-depth", "qemu:dirty-bitmap:b0"]),
        ("qemu:dirty-bitmap:", ["qemu:dirty-bitmap:b0"]),
        ("qemu:dirty-bitmap:b", []),
        ("base:nothing", []),
        ("unknown:", []),
        ("no colon", []),
    ],
)
def test_a_query_lists_what_it_matches(query, names):
    replies = Talk().option(nbd.OPT_LIST_META_CONTEXT, meta("disk", query))
    assert [nbd.parse_meta_context(data)[1] for _, data in replies[:-1]] == names
    assert replies[-1][0] == nbd.REP_ACK


def test_contexts_cannot_be_set_before_structured_replies():
    assert Talk().kinds(nbd.OPT_SET_META_CONTEXT, meta("disk", "base:allocation")) == [nbd.REP_ERR_INVALID]


def test_set_contexts_have_distinct_ids_and_wildcards_select_nothing():
    talk = Talk()
    talk.option(nbd.OPT_STRUCTURED_REPLY)
    queries = ("base:allocation", "qemu:", "qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b0")
    replies = talk.option(nbd.OPT_SET_META_CONTEXT, meta("disk", *queries))
    chosen = [nbd.parse_meta_context(data) for _, data in replies[:-1]]
    assert [name for _, name in chosen] == ["base:allocation", "qemu:dirty-bitmap:b0"]
    assert len({context for context, _ in chosen}) == 2
    talk.option(nbd.OPT_GO, go("disk"))
    assert list(talk.machine.session.contexts) == chosen


def test_contexts_set_for_another_export_do_not_count():
    talk = Talk()
    talk.option(nbd.OPT_STRUCTURED_REPLY)
    talk.option(nbd.OPT_SET_META_CONTEXT, meta("disk", "base:allocation"))
    talk.option(nbd.OPT_GO, go(""))
    assert talk.machine.session.contexts == ()


def test_a_failed_setting_of_contexts_forgets_the_former_ones():
    talk = Talk()
    talk.option(nbd.OPT_STRUCTURED_REPLY)
    talk.option(nbd.OPT_SET_META_CONTEXT, meta("disk", "base:allocation"))
    assert talk.kinds(nbd.OPT_SET_META_CONTEXT, meta("nope")) == [nbd.REP_ERR_UNKNOWN]
    talk.option(nbd.OPT_GO, go("disk"))
    assert talk.machine.session.contexts == ()


def test_a_query_count_of_four_billion_is_invalid():
    data = b"\0\0\0\4disk\xff\xff\xff\xff"
    assert Talk().kinds(nbd.OPT_LIST_META_CONTEXT, data) == [nbd.REP_ERR_INVALID]


@pytest.mark.parametrize(("flags", "padding"), [(nbd.FLAG_C_FIXED_NEWSTYLE, 124), (3, 0), (0, 124)])
def test_export_name_answers_with_size_flags_and_padding(flags, padding):
    talk = Talk(nbd.CLIENT_FLAGS.pack(flags))
    talk.feed(nbd.option(nbd.OPT_EXPORT_NAME, b"disk"))
    output = bytes(talk.machine.output)
    assert nbd.EXPORT_NAME_REPLY.unpack(output[:10])[0] == 1 << 20
    assert output[10:] == bytes(padding)
    assert talk.machine.state is State.CHOSEN


def test_export_name_for_an_unknown_export_ends_the_connection():
    with pytest.raises(ProtocolViolation, match="export name"):
        Talk().feed(nbd.option(nbd.OPT_EXPORT_NAME, b"nope"))


def test_a_client_without_fixed_newstyle_may_only_name_an_export():
    with pytest.raises(ProtocolViolation, match="fixed newstyle"):
        Talk(nbd.CLIENT_FLAGS.pack(0)).feed(nbd.option(nbd.OPT_LIST))


def test_a_wrong_option_magic_ends_the_connection():
    with pytest.raises(ProtocolViolation, match="option magic"):
        Talk().feed(bytes(16))


@pytest.mark.parametrize("length", [65537, 32 << 20, 0xFFFFFFFF])
def test_an_option_that_is_too_long_ends_the_connection_before_its_data(length):
    with pytest.raises(ProtocolViolation, match="option length"):
        Talk().feed(nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.OPT_GO, length))


@given(st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=30)), max_size=12))
def test_any_sequence_of_options_is_answered_or_ends_in_a_violation(options):
    talk = Talk()
    try:
        for option, data in options:
            if talk.machine.state is not State.OPTIONS:
                break
            talk.feed(nbd.option(option, data))
    except ProtocolViolation:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_are_consumed_kept_or_refused(data):
    talk = Talk()
    rest = data
    try:
        while talk.machine.state is State.OPTIONS and (consumed := talk.feed(rest)):
            rest = rest[consumed:]
    except ProtocolViolation:
        pass


def test_a_handshake_cut_at_any_byte_waits_for_the_rest():
    messages = nbd.option(nbd.OPT_STRUCTURED_REPLY) + nbd.option(nbd.OPT_GO, go("disk", nbd.INFO_NAME))
    whole = FIXED + messages
    for cut in range(len(whole)):
        machine = Negotiation(Shelf(), 65536)
        pending = b""
        for part in (whole[:cut], whole[cut:]):
            pending += part
            while machine.state in (State.CLIENT_FLAGS, State.OPTIONS) and (
                consumed := machine.receive(memoryview(pending))
            ):
                pending = pending[consumed:]
        assert machine.state is State.CHOSEN
