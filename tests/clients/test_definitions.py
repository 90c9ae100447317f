"""Node definitions built in Python and on the command line."""

import pytest

from blockyard.base.errors import InvalidArgument, UnknownOption
from blockyard.cli import setting
from blockyard.client.definitions import (
    NO_NODE,
    file,
    generic,
    image,
    memory,
    null,
    option_value,
    plain_value,
    qcow2,
    raw,
)
from blockyard.client.words import to_number, to_word, words
from blockyard.v1 import copy_pb2, drivers_pb2, job_pb2, node_pb2, types_pb2


def test_a_definition_nests_its_file():
    definition = qcow2(file("disk.qcow2"), node_name="top", read_only=True)
    assert definition.node_name == "top"
    assert definition.read_only
    assert definition.qcow2.file.definition.file.filename == "disk.qcow2"


def test_a_backing_node_left_out_is_not_the_same_as_none():
    assert not qcow2(file("a")).qcow2.HasField("backing")
    assert qcow2(file("a"), backing=NO_NODE).qcow2.backing.none


def test_a_child_by_name_is_a_reference_to_an_open_node():
    assert qcow2(file("a"), backing="base").qcow2.backing.node_name == "base"


def test_options_left_out_are_not_present():
    definition = qcow2(file("a"))
    assert not definition.qcow2.HasField("lazy_refcounts")
    assert not raw(file("a")).raw.HasField("size")
    assert raw(file("a"), size=0).raw.HasField("size")


def test_common_options_are_words_and_flags():
    definition = null(
        1 << 30, latency_ns=5, direct=True, discard="ignore", detect_zeroes="unmap", labels={"a": "b"}
    )
    assert definition.cache.direct
    assert definition.discard == types_pb2.DISCARD_MODE_IGNORE
    assert definition.detect_zeroes == types_pb2.DETECT_ZEROES_UNMAP
    assert definition.labels["a"] == "b"


def test_a_word_that_is_none_names_those_that_are():
    with pytest.raises(InvalidArgument, match=r"ignore \| unmap"):
        memory(1, discard="shred")


def test_the_short_form_opens_the_file_as_it_opens_the_format():
    definition = image("qcow2", "a.qcow2", read_only=True, node_name="a")
    assert definition.qcow2.file.definition.read_only
    assert definition.qcow2.file.definition.node_name == ""


def test_the_short_form_of_an_unknown_driver_is_generic():
    definition = image("vmdk", "a.vmdk")
    assert definition.generic.driver == "vmdk"
    assert definition.generic.children["file"].definition.file.filename == "a.vmdk"


@pytest.mark.parametrize("value", [True, 7, -(2**63), "text", b"\0\1", [1, "a", [False]], {"a": {"b": [1]}}])
def test_option_values_come_back_as_they_went(value):
    assert plain_value(option_value(value)) == value


def test_an_integer_of_more_than_64_bits_is_refused():
    with pytest.raises(InvalidArgument, match="64 bits"):
        option_value(2**63)


def test_generic_options_keep_their_types():
    options = generic("quorum", {"threshold": 2, "blkverify": True}).generic.options
    assert options["threshold"].int_value == 2
    assert options["blkverify"].bool_value is True


@pytest.mark.parametrize(
    ("enum", "word", "number"),
    [
        (copy_pb2.CopyMode, "write-blocking", copy_pb2.COPY_MODE_WRITE_BLOCKING),
        (drivers_pb2.OnCbwError, "break_guest_write", drivers_pb2.ON_CBW_ERROR_BREAK_GUEST_WRITE),
        (node_pb2.CheckImageRequest.Repair, "LEAKS", node_pb2.CheckImageRequest.REPAIR_LEAKS),
        (job_pb2.JobState, "ready", job_pb2.JOB_STATE_READY),
    ],
)
def test_words_are_the_protos_own_names(enum, word, number):
    assert to_number(enum, word, "field") == number
    assert to_word(enum, number) == word.lower().replace("_", "-")
    assert to_word(enum, number) in words(enum)


def test_a_number_of_a_later_version_is_shown_as_a_number():
    assert to_word(job_pb2.JobState, 99) == "99"


def test_set_finds_options_of_the_driver_and_of_the_node():
    definition = image("qcow2", "a")
    setting.apply(
        definition,
        ["l2_cache_size=64M", "lazy_refcounts=on", "discard=ignore", "cache.no_flush=true", "labels.vm=7"],
    )
    assert definition.qcow2.l2_cache_size == 64 << 20
    assert definition.qcow2.lazy_refcounts
    assert definition.discard == types_pb2.DISCARD_MODE_IGNORE
    assert definition.cache.no_flush
    assert definition.labels["vm"] == "7"


def test_set_reaches_into_the_driver_by_its_name_too():
    definition = null()
    setting.apply(definition, ["null.latency_ns=100"])
    assert definition.null.latency_ns == 100


def test_set_turns_a_child_into_a_reference_or_none():
    definition = image("qcow2", "a")
    setting.apply(definition, ["backing=base"])
    assert definition.qcow2.backing.node_name == "base"
    setting.apply(definition, ["backing=none"])
    assert definition.qcow2.backing.none


def test_set_of_a_generic_driver_guesses_the_type():
    definition = generic("quorum")
    setting.apply(definition, ["threshold=2", "verify=true", "pattern=quorum"])
    assert definition.generic.options["threshold"].int_value == 2
    assert definition.generic.options["verify"].bool_value
    assert definition.generic.options["pattern"].string_value == "quorum"


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("l3_cache_size=1", UnknownOption, "l2_cache_size"),
        ("cache.dirct=true", UnknownOption, "direct, no_flush"),
        ("lazy_refcounts=maybe", InvalidArgument, "true or false"),
        ("l2_cache_size=big", InvalidArgument, "a size"),
        ("discard=shred", InvalidArgument, "ignore | unmap"),
        ("cache=x", InvalidArgument, "direct, no_flush"),
        ("nothing", InvalidArgument, "PATH=VALUE"),
    ],
)
def test_set_says_what_is_wrong(text, error, says):
    with pytest.raises(error) as raised:
        setting.apply(image("qcow2", "a"), [text])
    assert says in str(raised.value)
