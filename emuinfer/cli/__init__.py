"""The command line, `emuinfer`: one file per command."""
