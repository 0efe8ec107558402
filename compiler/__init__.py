"""The compiler: capture, IR, passes, schedule, code generation."""
