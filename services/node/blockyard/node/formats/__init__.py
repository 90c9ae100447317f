"""Pure codecs of what is on disk and on the wire: no I/O, no asyncio, no logging."""
