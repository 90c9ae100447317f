"""Pages that are printed from the code, one module each, registered in `docs/generate.py`."""
