"""The entries, by what they attack. Each module gives `ENTRIES`."""
