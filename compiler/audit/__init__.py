"""Audits of machine code: which float instructions a kernel really executes."""
