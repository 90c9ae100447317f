"""The node service: image files, drivers, and the live graph of block nodes.

Layers, each importing only what is below it (enforced by import-linter):
app > rpc > exports > copying > graph > drivers > formats > interface > core > blockyard.base.
"""
