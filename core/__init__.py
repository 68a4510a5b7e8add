"""The decisions, as pure functions of frozen facts: no library, no clock, no I/O."""
