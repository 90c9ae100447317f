"""Images as files, not as nodes of the graph: create, look at, guess, check, measure.

What must not live here: any driver by name but `file`, which is where images lie; the wire. Every image is opened
under no name and closed again, its backing file is never followed unless that is what was asked for.
"""

import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blockyard.base.errors import (
    BackingDenied,
    BackingFormatUnknown,
    BackingLoop,
    BackingMissing,
    BlockError,
    ChainTooDeep,
    FileExists,
    FileNotFound,
    FormatMismatch,
    InvalidArgument,
    OperationUnsupported,
)
from blockyard.base.ranges import align_down, align_up
from blockyard.base.units import SECTOR
from blockyard.node.drivers.catalogue import all_drivers, driver_class
from blockyard.node.formats import foreign
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.facts import node_info
from blockyard.node.graph.referring import path_of
from blockyard.node.graph.status import block_status
from blockyard.node.graph.temporary import temporary
from blockyard.node.interface.abilities import ProbesDevices
from blockyard.node.interface.driver import (
    BackingReference,
    Checkable,
    CheckReport,
    Creatable,
    Driver,
    DriverContext,
    FormatDriver,
    Measurable,
    NodeInfo,
    Probes,
)
from blockyard.node.interface.flags import Preallocation, Role
from blockyard.node.interface.options import options_from

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

FILE: Final = "file"
PROBE_BYTES: Final = 4096
"""What a guess looks at; QEMU takes 512 (BLOCK_PROBE_BUF_SIZE), some formats put their descriptor later."""
CERTAIN: Final = 100
_TEMPORARY_NAME: Final = "#image"


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """An image to create, or to measure. `options` are the driver's, and those of the file below."""

    filename: str
    driver: str
    size: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image's header says."""

    filename: str
    driver: str
    size: int
    info: NodeInfo
    backing: BackingReference | None


class Guess(NamedTuple):
    """A driver that the first bytes speak for, 0 to 100."""

    driver: str
    score: int


# --- create ----------------------------------------------------------------------------------------------


async def create(graph: "Graph", order: ImageOrder, *, validate_only: bool = False) -> None:
    """Make the image durably, or leave nothing. Raises catalogue errors."""
    size = await _image_size(graph, order)
    class_, below = driver_class(order.driver), driver_class(FILE)
    assert isinstance(below, Creatable)
    if not isinstance(class_, Creatable):
        raise OperationUnsupported(order.filename, order.driver, "create images")
    if class_ is below:
        whole = {**order.options, "filename": order.filename, "size": size, "overwrite": order.overwrite}
        file_options, own = options_from(f"driver {FILE}", below.CreateOptions, whole), None
    else:
        names = {item.name for item in fields(class_.CreateOptions)}
        known = {item.name for item in fields(below.CreateOptions)} - names
        for_file = {name: value for name, value in order.options.items() if name in known}
        rest = {name: value for name, value in order.options.items() if name not in known}
        for_file |= {"filename": order.filename, "overwrite": order.overwrite}
        own = options_from(f"driver {order.driver}", class_.CreateOptions, {**rest, "size": size})
        file_options = options_from(f"driver {FILE}", below.CreateOptions, for_file)
    if validate_only:
        await _rehearse(graph, order, class_, own)
        return
    beside = _files_beside(graph, order, class_, own)
    await below.create(file_options, _context(graph, {}))
    if own is not None:
        await _format(graph, order, class_, own, beside)


async def _image_size(graph: "Graph", order: ImageOrder) -> int:
    """The size asked for, or that of the backing image. Also checks what the header is to say."""
    if order.size < 0:
        raise InvalidArgument("size_bytes", "0 or more", str(order.size))
    backing = str(order.options.get("backing_file") or "")
    if not backing:
        return order.size
    format_ = str(order.options.get("backing_fmt") or "")
    if not format_:
        raise InvalidArgument("backing_format", "the format of the backing file", "nothing")
    driver_class(format_)
    path = graph.environment.storage.relative_to_image(order.filename, backing)
    if order.size:
        return order.size
    if not graph.environment.follow_backing:
        raise BackingDenied(order.filename, backing)
    try:
        async with _looked_at(graph, path, format_) as node:
            return node.driver.size
    except BlockError as problem:
        raise BackingMissing(order.filename, backing, str(problem)) from problem


def _files_beside(graph: "Graph", order: ImageOrder, class_: Any, options: Any) -> dict[str, str]:
    """Paths of further files that are to hold data of the image, by child: options under the children's names."""
    storage, found = graph.environment.storage, {}
    for slot in class_.children if options is not None else ():
        if slot.role is Role.DATA and (name := getattr(options, slot.name.replace("-", "_"), "")):
            path = storage.relative_to_image(order.filename, name)
            if storage.display(path) == storage.display(order.filename):
                raise InvalidArgument(slot.name.replace("-", "_"), "another file than the image", name)
            found[slot.name] = path
    return found


async def _format(graph: "Graph", order: ImageOrder, class_: Any, options: Any, beside: dict[str, str]) -> None:
    below, made = driver_class(FILE), [order.filename]
    assert isinstance(below, Creatable)
    try:
        async with AsyncExitStack() as stack:
            children: dict[str, Edge] = {}
            for child, path in {FILE: order.filename, **beside}.items():
                if child != FILE:
                    values = {"filename": path, "size": 0, "overwrite": order.overwrite}
                    wanted = options_from(f"driver {FILE}", below.CreateOptions, values)
                    await below.create(wanted, _context(graph, {}))
                    made.append(path)
                definition = NodeDefinition(FILE, options={"filename": path})
                node = await stack.enter_async_context(temporary(graph, definition))
                children[child] = await stack.enter_async_context(_held(node))
            await class_.create(options, _context(graph, children))
            for edge in children.values():
                await edge.flush()
    except BaseException:
        if not order.overwrite:
            for path in made:
                with suppress(BlockError):
                    graph.environment.storage.unlink(path)
        raise


async def _rehearse(graph: "Graph", order: ImageOrder, class_: Any, options: Any) -> None:
    """Look at the place, and make the image in memory, where it costs only its metadata."""
    storage = graph.environment.storage
    try:
        async with temporary(graph, NodeDefinition(FILE, options={"filename": order.filename}, read_only=True)):
            pass
    except FileNotFound:
        storage.sync_directory(order.filename)  # raises if there is no such directory
    else:
        if not order.overwrite:
            raise FileExists(storage.display(order.filename))
    if options is None or getattr(options, "preallocation", Preallocation.OFF) != Preallocation.OFF:
        return
    async with AsyncExitStack() as stack:
        children = {}
        for child in (FILE, *_files_beside(graph, order, class_, options)):
            node = await stack.enter_async_context(temporary(graph, NodeDefinition("memory")))
            children[child] = await stack.enter_async_context(_held(node))
        await class_.create(options, _context(graph, children))


@asynccontextmanager
async def _held(node: "Node") -> AsyncIterator[Edge]:
    edge = Edge(None, FILE, Role.FILE, node)
    try:
        yield edge
    finally:
        edge.detach()


def _context(graph: "Graph", children: dict[str, Edge]) -> DriverContext:
    environment = graph.environment
    return DriverContext(
        node_name=_TEMPORARY_NAME,
        read_only=False,
        children=children,
        pool=environment.pool.share(_TEMPORARY_NAME),
        storage=environment.storage,
        clock=environment.clock,
        secrets=environment.secrets,
    )


# --- look ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _looked_at(graph: "Graph", filename: str, driver: str) -> "AsyncIterator[Node]":
    """One image and nothing that its header names. No lock is taken: someone may be writing to it."""
    async with temporary(graph, _definition(filename, driver, read_only=True, force_share=True)) as node:
        yield node


def _definition(
    filename: str,
    driver: str,
    *,
    read_only: bool,
    force_share: bool = False,
    options: Mapping[str, Any] | None = None,
) -> NodeDefinition:
    """Encrypted images are opened without their key, and what a header names is not opened: nobody wants data."""
    file = NodeDefinition(FILE, options={"filename": filename}, read_only=read_only, force_share=force_share)
    if driver == FILE:
        return file
    children: dict[str, NodeDefinition | str | None] = {FILE: file}
    if any(slot.name == "backing" for slot in driver_class(driver).children):
        children["backing"] = None
    can_do_without = any(item.name == "no_io" for item in fields(driver_class(driver).Options))
    options = {**(options or {}), **({"no_io": True} if can_do_without else {})}
    return NodeDefinition(driver, children=children, options=options, read_only=read_only, force_share=force_share)


async def image_facts(graph: "Graph", filename: str, driver: str = "") -> ImageFacts:
    """One image. Without a driver its first bytes decide, which is safe because nothing is written."""
    driver = driver or await _best_guess(graph, filename)
    async with _looked_at(graph, filename, driver) as node:
        backing = node.driver.backing() if isinstance(node.driver, FormatDriver) else None
        return ImageFacts(node.filename, driver, node.driver.size, await node_info(node), backing)


async def chain_facts(graph: "Graph", filename: str, driver: str = "") -> list[ImageFacts]:
    """An image and the backing images that headers name, through the gate."""
    environment, storage = graph.environment, graph.environment.storage
    found = [await image_facts(graph, filename, driver)]
    path, seen = filename, {storage.display(filename)}
    while (reference := found[-1].backing) is not None:
        image = found[-1].filename
        if not environment.follow_backing:
            raise BackingDenied(image, reference.filename)
        if not reference.format:
            raise BackingFormatUnknown(image, reference.filename)
        if len(found) > environment.max_chain_depth:
            raise ChainTooDeep(image, environment.max_chain_depth)
        path = path_of(storage, path, image, reference)
        if storage.display(path) in seen:
            raise BackingLoop(image, reference.filename)
        seen.add(storage.display(path))
        try:
            found.append(await image_facts(graph, path, reference.format))
        except BlockError as problem:
            raise BackingMissing(image, reference.filename, str(problem)) from problem
    return found


class Probed(NamedTuple):
    """What a file looks like, best guesses first."""

    formats: list[Guess]
    protocols: list[Guess]
    """Drivers that suit the kind of file (find_hdev_driver)."""
    kind: str
    """file, block-device or character-device."""


async def probe(graph: "Graph", filename: str) -> Probed:
    """Ask every driver. Nothing that is found is opened; at most `PROBE_BYTES` are read."""
    mode = await graph.environment.pool.run(_mode, graph, filename)
    devices = [
        Guess(name, score)
        for name, class_ in all_drivers()
        if isinstance(class_, ProbesDevices) and (score := class_.probe_device(mode))
    ]
    kind = "block-device" if stat.S_ISBLK(mode) else "character-device" if stat.S_ISCHR(mode) else "file"
    formats, _ = await _formats(graph, filename)
    return Probed(formats, sorted(devices, key=_ranked), kind)


def _mode(graph: "Graph", filename: str) -> int:
    descriptor = graph.environment.storage.open(filename, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)


def _ranked(guess: Guess) -> tuple[int, str]:
    return -guess.score, guess.driver


async def _formats(graph: "Graph", filename: str) -> tuple[list[Guess], bytes]:
    """Best guesses first, and the first bytes."""
    definition = NodeDefinition(FILE, options={"filename": filename}, read_only=True, force_share=True)
    async with temporary(graph, definition) as node, _held(node) as edge:
        head = bytearray(min(PROBE_BYTES, edge.size))
        await edge.read(0, memoryview(head))
    guesses = [
        Guess(name, score)
        for name, class_ in all_drivers()
        if isinstance(class_, Probes) and (score := class_.probe(bytes(head)))
    ]
    return sorted(guesses, key=_ranked), bytes(head)


async def _best_guess(graph: "Graph", filename: str) -> str:
    guesses, head = await _formats(graph, filename)
    certain = [guess.driver for guess in guesses if guess.score >= CERTAIN]
    if len(certain) > 1:
        shown = graph.environment.storage.display(filename)
        raise FormatMismatch(shown, certain[0], f"it looks like {' and '.join(certain)} at once")
    assert guesses, "the raw driver takes anything"
    if not certain and (name := foreign.looks_like(head)):
        shown = graph.environment.storage.display(filename)
        raise FormatMismatch(shown, guesses[0].driver, f"it begins like {name}, which no driver here reads")
    return guesses[0].driver


# --- check and measure -----------------------------------------------------------------------------------


async def check(
    graph: "Graph", filename: str, driver: str, *, fix_leaks: bool = False, fix_errors: bool = False
) -> CheckReport:
    """Compare an image's metadata with itself. Raises FileBusy while someone writes to it."""
    repair = fix_leaks or fix_errors
    class_ = driver_class(driver)
    can_open_broken = repair and any(item.name == "repair" for item in fields(class_.Options))
    options = {"repair": True} if can_open_broken else {}
    async with temporary(graph, _definition(filename, driver, options=options, read_only=not repair)) as node:
        if not isinstance(node.driver, Checkable):
            raise OperationUnsupported(node.filename, driver, "check its metadata")
        return await node.driver.check(fix_leaks, fix_errors)


async def measure(graph: "Graph", order: ImageOrder, source: "Node | None") -> tuple[int, int]:
    """Bytes that an image would take: for the content of `source` (nothing without one), and fully allocated."""
    class_: type[Driver] = driver_class(order.driver)
    if not isinstance(class_, Measurable) or not isinstance(class_, Creatable):
        raise OperationUnsupported(order.filename or order.driver, order.driver, "be measured")
    # A file that ends inside a sector has that sector whole in every other format (qemu-img measure).
    size = order.size if source is None else align_up(source.driver.size, SECTOR)
    if size < 0:
        raise InvalidArgument("size_bytes", "0 or more", str(size))
    names = {item.name for item in fields(class_.CreateOptions)}
    own = {name: value for name, value in order.options.items() if name in names}
    options = options_from(f"driver {order.driver}", class_.CreateOptions, {**own, "size": size})
    data = 0 if source is None else await _data_bytes(source, class_.measure_unit(options))
    return class_.measure(options, data)


async def _data_bytes(node: "Node", unit: int) -> int:
    """Bytes that are not zero, in whole units, each unit counted once."""
    total, counted_to, offset, size = 0, 0, 0, node.driver.size
    while offset < size:
        for extent in await block_status(node, offset, size - offset):
            offset = extent.offset + extent.length
            if extent.zero or not extent.allocated:
                continue
            start, end = max(counted_to, align_down(extent.offset, unit)), align_up(offset, unit)
            total += max(0, end - start)
            counted_to = max(counted_to, end)
    return total
