"""Exit codes of the command line; what each says is in `ree.cli`."""

OK, DIFFERS, ERROR, INTERNAL, INTERRUPTED = 0, 1, 2, 70, 130
