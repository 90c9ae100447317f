"""The jobs service: stream, commit, mirror and backup as policies over the node's copy sessions."""
