"""LUKS for the drivers that have it: `luks` and `qcow2`. Headers in files, keys out of them, key slots changed.

`header` reads and writes a header where it lies, `unlocking` finds the volume key, `slots` adds and erases key
slots so that no crash leaves an image without one, `creating` makes new headers, `options` holds what all of it is
told. The codecs and the arithmetic are in `formats/luks`.
"""
