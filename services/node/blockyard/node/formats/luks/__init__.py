"""LUKS, versions 1 and 2: what the header says, and the arithmetic of keys. Pure codecs.

`cipher` names and makes the ciphers, `antiforensic` splits and merges keys, `volume` holds what both versions have
in common, `luks1` and `luks2` are the headers, `derivation` makes keys of passphrases.
"""
