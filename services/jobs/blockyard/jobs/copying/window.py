"""How much may be in flight at the node, and in how large orders.

What lives here: counting of orders and bytes. What must not: time, streams, progress.

Theory: an order costs some 300 us of two processes' time whatever its size, so orders are large; a pause or a
change of speed acts when the orders in flight have come back, so they are not huge; and one must always be
waiting at the node while another is worked on, so there are at least two.
"""

from typing import Final

from blockyard.base.units import MIB
from blockyard.jobs.node.port import MAX_ORDER_BYTES

DEFAULT_WINDOW_BYTES: Final = 16 * MIB
"""job.proto, MirrorOptions.buf_size_bytes."""

DEFAULT_ORDER_BYTES: Final = 4 * MIB
MAX_WINDOW_BYTES: Final = 256 * MIB
MAX_ORDERS: Final = 64
"""QEMU's default and our largest max_workers (qapi/block-core.json, BackupPerf)."""


class Window:
    """Bytes and orders in flight, bounded both ways."""

    def __init__(
        self,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        order_bytes: int = DEFAULT_ORDER_BYTES,
        max_orders: int = MAX_ORDERS,
    ) -> None:
        assert 0 < window_bytes <= MAX_WINDOW_BYTES
        assert 0 < order_bytes <= MAX_ORDER_BYTES
        assert 0 < max_orders <= MAX_ORDERS
        self.window_bytes = window_bytes
        self.max_orders = max_orders
        self.order_bytes = min(order_bytes, max(window_bytes // 2, 1))
        self._out: dict[int, int] = {}
        self._bytes = 0
        self._next_id = 1

    @property
    def orders(self) -> int:
        """How many orders are out."""
        return len(self._out)

    @property
    def bytes_in_flight(self) -> int:
        return self._bytes

    def room(self, allowance_bytes: int, wanted_bytes: int) -> int:
        """How large the next order may be; 0 if none may go out.

        `allowance_bytes` bounds what may be in flight besides the window, `wanted_bytes` is what is left to do:
        no more orders go out than it needs, but one always may.
        """
        if not self._out:
            return min(self.order_bytes, allowance_bytes, self.window_bytes)
        limit = min(self.window_bytes, allowance_bytes, wanted_bytes)
        if len(self._out) >= self.max_orders or self._bytes >= limit:
            return 0
        return min(self.order_bytes, allowance_bytes, self.window_bytes - self._bytes)

    def take(self, size_bytes: int) -> int:
        """Count a new order and give it its id. Ids are never used twice, so a late report is known as such."""
        order_id = self._next_id
        self._next_id += 1
        self._out[order_id] = size_bytes
        self._bytes += size_bytes
        return order_id

    def give_back(self, order_id: int) -> bool:
        """Count an order's end. False if no such order is out."""
        size_bytes = self._out.pop(order_id, None)
        if size_bytes is None:
            return False
        self._bytes -= size_bytes
        return True

    def clear(self) -> None:
        """Forget the orders of a stream that is gone."""
        self._out.clear()
        self._bytes = 0
