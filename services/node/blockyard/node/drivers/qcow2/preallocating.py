"""Space allocated ahead of writes, by the code that serves writes, so it is crash-safe like them."""

from blockyard.node.drivers.qcow2.allocation import Reservation
from blockyard.node.drivers.qcow2.dropping import Dropper
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.subcluster_dropping import SubclusterDropper
from blockyard.node.interface.flags import Preallocation


async def preallocate(image: Image, start: int, end: int, mode: Preallocation) -> None:
    """Allocate `[start, end)`; what is allocated already stays as it is. An external data file is zero there."""
    if mode == Preallocation.OFF:
        return
    below = Preallocation.OFF if mode == Preallocation.METADATA else mode
    position = start
    while position < end:
        room = await image.space.allocate(position, end - position)
        token = room.token
        assert isinstance(token, Reservation)
        position = room.start + room.length
        if not token.is_new:
            await image.space.abandon(token)
            continue
        try:
            if not token.virgin and not image.has_data_file and image.encryption is None:
                await image.file.zero(room.offset, room.length)
            if room.offset + room.length > image.file.size and not image.has_data_file:
                # The file must reach as far as what the tables refer to, before they do.
                await image.file.truncate(room.offset + room.length, below)
            if image.encryption is not None and not image.has_zero_flag:
                await image.space.child().zero(room.offset, room.length)
        except BaseException:
            await image.space.abandon(token)
            raise
        await image.space.commit(token)
    if image.encryption is not None and image.has_zero_flag:
        # Places that were not written are noise: they stay allocated, and read as zeroes.
        dropper = (SubclusterDropper if image.geometry.extended else Dropper)(image, image.space)
        await dropper.zero(start, end - start, 0)
    await image.writeback.flush()
