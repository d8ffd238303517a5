"""The command line: ``metahp``. A command parses, makes one library call and prints."""
