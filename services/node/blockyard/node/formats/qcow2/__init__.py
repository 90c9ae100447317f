"""The bytes of a qcow2 image: header, extensions, tables, refcounts, snapshots, bitmaps, compression.

Pure codecs: bytes in, values out, and back. Nothing here opens, awaits or logs. All offsets and lengths are
bytes; all integers on disk are big-endian. The description of the format is QEMU's docs/interop/qcow2.txt
(cited as "spec"); limits that the spec leaves open are those of QEMU's block/qcow2.h.
"""
