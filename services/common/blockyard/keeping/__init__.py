"""What outlives a process, for any service: a directory of its own, and a SQLite database that loses no commit.

Must not know what is kept. A service's own tables are its own; here is how their file is made, recognised, brought
up to date and driven from an event loop.
"""
