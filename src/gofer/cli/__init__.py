"""The command `gofer`. Nothing of the library imports it."""
