"""Where jobs are written down: the port, and the store in memory."""
