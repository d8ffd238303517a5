"""Writers of the tables of docs/replay.md."""
