"""The commands, one module per group of `blockyard.cli.app.GROUPS`. Imported when a command of it is used."""
