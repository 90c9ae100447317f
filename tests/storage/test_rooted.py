"""Storage roots refuse everything that could lead outside, by both ways of resolving."""

import errno
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BlockError,
    FileExists,
    FileNotFound,
    FileReadOnly,
    InvalidArgument,
    IoError,
    NoSpace,
    PathDenied,
)
from blockyard.node.storage import RootedStorage
from blockyard.node.storage.beneath import best_opener, openat2, walk

SECRET = b"outside"
RACE_ROUNDS = 3000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = tmp_path / "root"
    (inside / "deep" / "er").mkdir(parents=True)
    (inside / "plain").write_bytes(b"inside")
    (inside / "deep" / "er" / "image").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "image").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    return inside


@pytest.fixture(params=[openat2, walk], ids=["openat2", "walk"])
def storage(request: pytest.FixtureRequest, root: Path) -> Iterator[RootedStorage]:
    with RootedStorage([root], request.param) as opened:
        yield opened


def content(storage: RootedStorage, path: str) -> bytes:
    descriptor = storage.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def why_denied(storage: RootedStorage, path: str, flags: int = os.O_RDONLY) -> str:
    before = descriptors()
    with pytest.raises(PathDenied) as refusal:
        storage.open(path, flags)
    assert descriptors() == before, "a refused path left a descriptor behind"
    return refusal.value.why


def test_this_kernel_offers_openat2(root: Path):
    with RootedStorage([root]) as storage:
        assert storage._opener is openat2


def test_a_kernel_without_openat2_gets_the_walk(root: Path, monkeypatch: pytest.MonkeyPatch):
    import blockyard.node.storage.beneath as beneath

    monkeypatch.setattr(beneath, "SYS_OPENAT2", 100_000)
    descriptor = os.open(root, os.O_PATH)
    assert best_opener(descriptor) is walk
    os.close(descriptor)


def test_a_relative_path_opens_beneath_the_first_root(storage: RootedStorage):
    assert content(storage, "deep/er/image") == b"inside"


def test_dots_and_doubled_slashes_mean_nothing(storage: RootedStorage):
    assert content(storage, "./deep//./er/image") == b"inside"


def test_an_absolute_path_beneath_the_root_opens(storage: RootedStorage, root: Path):
    assert content(storage, str(root / "deep/er/image")) == b"inside"


def test_an_absolute_path_through_a_linked_root_opens(root: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(root)
    with RootedStorage([tmp_path / "link"]) as storage:
        assert content(storage, str(root / "plain")) == b"inside"
        assert content(storage, str(tmp_path / "link" / "plain")) == b"inside"


def test_each_of_several_roots_is_found_by_its_absolute_path(root: Path, tmp_path: Path):
    with RootedStorage([root, tmp_path / "outside"]) as storage:
        assert content(storage, str(tmp_path / "outside" / "image")) == SECRET
        assert content(storage, "plain") == b"inside"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("../secret", "'..'"),
        ("deep/../plain", "'..'"),
        ("/etc/passwd", "outside"),
        ("/", "directory"),
        (".", "directory"),
        ("deep", "directory"),
        ("plain/", "directory"),
        ("x" * 256, "component"),
        ("x/" * 3000 + "y", "longer"),
        ("\ud800", "text"),
    ],
)
def test_a_path_that_cannot_be_is_refused_with_its_reason(storage: RootedStorage, path: str, why: str):
    assert why in why_denied(storage, path)


def test_the_roots_own_name_as_a_prefix_of_another_does_not_match(storage: RootedStorage, root: Path):
    sibling = root.parent / "root-sibling"
    sibling.write_bytes(SECRET)
    assert "outside" in why_denied(storage, str(sibling))


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "plain", "nowhere"])
def test_a_link_as_last_component_is_refused(storage: RootedStorage, root: Path, target: str):
    (root / "link").symlink_to(target)
    assert "symbolic link" in why_denied(storage, "link")


@pytest.mark.parametrize("target", ["../outside", "deep", "/"])
def test_a_link_on_the_way_is_refused(storage: RootedStorage, root: Path, target: str):
    (root / "link").symlink_to(target)
    assert "symbolic link" in why_denied(storage, "link/image")


def test_a_created_file_never_goes_through_a_link(storage: RootedStorage, root: Path):
    (root / "link").symlink_to("../created")
    assert "symbolic link" in why_denied(storage, "link", os.O_RDWR | os.O_CREAT)
    assert not (root.parent / "created").exists()


@pytest.mark.parametrize("opener", [openat2, walk])
def test_magic_links_of_proc_are_refused(opener, root: Path):
    secret = os.open(root.parent / "secret", os.O_RDONLY)
    with RootedStorage(["/proc"], opener) as storage:
        assert "symbolic link" in why_denied(storage, f"{os.getpid()}/fd/{secret}")
        assert "symbolic link" in why_denied(storage, f"{os.getpid()}/root/etc/passwd")
    os.close(secret)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_a_fifo_is_refused_without_blocking(storage: RootedStorage, root: Path, flags: int):
    os.mkfifo(root / "fifo")
    assert "regular" in why_denied(storage, "fifo", flags)


def test_a_socket_is_refused(storage: RootedStorage, root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert "regular" in why_denied(storage, "socket")


@pytest.mark.parametrize("opener", [openat2, walk])
def test_a_character_device_is_refused(opener):
    with RootedStorage(["/dev"], opener) as storage:
        assert "regular" in why_denied(storage, "null")


def test_a_missing_file_is_not_found_under_its_relative_name(storage: RootedStorage, root: Path):
    with pytest.raises(FileNotFound) as missing:
        storage.open(str(root / "deep" / "none"), os.O_RDONLY)
    assert missing.value.path == "deep/none"


def test_a_file_on_the_way_is_not_found(storage: RootedStorage):
    with pytest.raises(FileNotFound):
        storage.open("plain/image", os.O_RDONLY)


def test_exclusive_creation_of_a_file_that_exists_is_refused(storage: RootedStorage):
    with pytest.raises(FileExists):
        storage.open("plain", os.O_RDWR | os.O_CREAT | os.O_EXCL)


def test_a_created_file_has_the_mode_that_was_asked_for(storage: RootedStorage, root: Path):
    os.close(storage.open("deep/new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640))
    assert (root / "deep" / "new").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("code", "flags", "error"),
    [
        (errno.EROFS, os.O_RDWR, FileReadOnly),
        (errno.EACCES, os.O_RDWR, FileReadOnly),
        (errno.EACCES, os.O_RDONLY, PathDenied),
        (errno.ENOSPC, os.O_RDWR | os.O_CREAT, NoSpace),
        (errno.EDQUOT, os.O_RDWR | os.O_CREAT, NoSpace),
        (errno.EXDEV, os.O_RDONLY, PathDenied),
        (errno.EAGAIN, os.O_RDONLY, IoError),
        (errno.EMFILE, os.O_RDONLY, IoError),
    ],
)
def test_what_the_kernel_answers_becomes_an_error_of_the_catalogue(
    root: Path, code: int, flags: int, error: type[BlockError]
):
    def refuse(directory: int, components: Sequence[str], flags: int, mode: int) -> int:
        raise OSError(code, os.strerror(code))

    with RootedStorage([root], refuse) as storage, pytest.raises(error):
        storage.open("plain", flags)


def test_an_opened_file_is_in_blocking_mode(storage: RootedStorage):
    descriptor = storage.open("plain", os.O_RDWR)
    assert os.get_blocking(descriptor)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_unlink_removes_a_file(storage: RootedStorage, root: Path):
    storage.unlink("deep/er/image")
    assert not (root / "deep/er/image").exists()


def test_unlink_refuses_directories_links_and_outside(storage: RootedStorage, root: Path):
    (root / "link").symlink_to("../outside")
    for path in ("deep", "link", "link/image", "../secret", "/etc/hostname"):
        with pytest.raises(PathDenied):
            storage.unlink(path)
    assert (root.parent / "outside" / "image").read_bytes() == SECRET


def test_unlink_of_a_missing_file_is_not_found(storage: RootedStorage):
    with pytest.raises(FileNotFound):
        storage.unlink("none")


def test_the_directory_of_a_file_can_be_synced_at_any_depth(storage: RootedStorage):
    storage.sync_directory("plain")
    storage.sync_directory("deep/er/image")


@pytest.mark.parametrize(
    ("image", "reference", "found"),
    [
        ("overlay", "base", "base"),
        ("deep/overlay", "base", "deep/base"),
        ("deep/er/overlay", "../base", "deep/base"),
        ("deep/er/overlay", "./a/../../base", "deep/base"),
        ("deep/overlay", "a b:c/d", "deep/a b:c/d"),
        ("overlay", "./file:base", "file:base"),
    ],
)
def test_a_header_names_its_backing_file_relative_to_itself(
    storage: RootedStorage, image: str, reference: str, found: str
):
    assert storage.relative_to_image(image, reference) == found


def test_a_reference_of_an_absolute_image_stays_absolute(storage: RootedStorage, root: Path):
    assert storage.relative_to_image(str(root / "deep/overlay"), "../base") == str(root / "base")


def test_an_absolute_reference_beneath_a_root_is_kept(storage: RootedStorage, root: Path):
    assert storage.relative_to_image("deep/overlay", str(root / "base")) == str(root / "base")


@pytest.mark.parametrize(
    "reference",
    [
        "../../secret",
        "/etc/shadow",
        "json:{}",
        "nbd://host/x",
        "file:base",
        "",
        "a\0b",
        "..",
        "../deep/../../x",
        "/etc/../x",
    ],
)
def test_a_reference_that_leads_outside_or_names_a_protocol_is_refused(storage: RootedStorage, reference: str):
    with pytest.raises(PathDenied):
        storage.relative_to_image("deep/overlay", reference)


def test_a_path_is_displayed_relative_to_its_root(storage: RootedStorage, root: Path):
    assert storage.display(str(root / "deep" / "x")) == "deep/x"
    assert storage.display("./deep/x") == "deep/x"


def test_a_refusal_never_names_the_root(storage: RootedStorage, root: Path):
    (root / "link").symlink_to("/etc")
    for path in ("link/passwd", "../secret", "deep", "none", "plain/x"):
        with pytest.raises(BlockError) as refusal:
            storage.open(path, os.O_RDONLY)
        text = f"{refusal.value} {refusal.value.hint} {refusal.value.metadata()}"
        assert str(root) not in text
        assert "/etc" not in text


def test_a_refused_path_is_shown_in_part_only(storage: RootedStorage):
    with pytest.raises(PathDenied) as refusal:
        storage.open("../" + "x" * 4000, os.O_RDONLY)
    assert len(refusal.value.path) < 300


def test_a_root_that_is_no_directory_is_refused_at_start(root: Path):
    for wrong in (root / "plain", root / "none"):
        with pytest.raises(InvalidArgument):
            RootedStorage([root, wrong])


def test_no_root_at_all_is_refused():
    with pytest.raises(InvalidArgument):
        RootedStorage([])


def test_a_renamed_root_is_still_the_same_directory(root: Path, tmp_path: Path):
    with RootedStorage([root]) as storage:
        root.rename(tmp_path / "moved")
        root.symlink_to(tmp_path / "outside")
        assert content(storage, "deep/er/image") == b"inside"


@pytest.mark.parametrize("opener", [openat2, walk], ids=["openat2", "walk"])
def test_a_component_swapped_for_a_link_never_leads_outside(opener, root: Path):
    """One thread swaps `race` between a directory and a link to the outside while we open beneath it."""
    (root / "real").mkdir()
    (root / "real" / "image").write_bytes(b"inside")
    (root / "link").symlink_to("../outside")
    (root / "race").symlink_to("real")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for name in ("real", "link"):
                (root / "race").unlink()
                (root / name).rename(root / "race")
                (root / "race").rename(root / name)
                (root / "race").symlink_to("real")

    thread = threading.Thread(target=swap)
    thread.start()
    outcomes: dict[str, int] = {}
    try:
        with RootedStorage([root], opener) as storage:
            for _ in range(RACE_ROUNDS):
                try:
                    outcome = content(storage, "race/image").decode()
                except BlockError as refusal:
                    outcome = refusal.reason
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
    finally:
        done.set()
        thread.join()
    assert SECRET.decode() not in outcomes, outcomes
    assert outcomes.get("PATH_DENIED", 0) > 0, "the race never met a link; the test proves nothing"


@pytest.mark.parametrize(
    ("image", "path", "name"),
    (
        ("top", "base", "base"),
        ("a/top", "base", "../base"),
        ("a/top", "a/b/base", "b/base"),
        ("a/b/top", "c/base", "../../c/base"),
        ("top", "n:b", "./n:b"),
    ),
)
def test_a_header_can_name_a_file_as_seen_from_the_image(image: str, path: str, name: str, tmp_path: Path):
    with RootedStorage([tmp_path]) as storage:
        assert storage.name_for(image, path, absolute=False) == name
        assert storage.is_same(storage.relative_to_image(image, name), path)
        whole = storage.name_for(image, path, absolute=True)
        assert whole == f"{tmp_path.resolve()}/{path}"
        assert storage.is_same(storage.relative_to_image(image, whole), path)


def test_beneath_two_roots_there_is_no_relative_name(tmp_path: Path):
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        root.mkdir()
    with RootedStorage(roots) as storage:
        with pytest.raises(InvalidArgument):
            storage.name_for("top", f"{roots[1]}/base", absolute=False)
        assert storage.name_for("top", f"{roots[1]}/base", absolute=True) == f"{roots[1].resolve()}/base"
