"""What a shell starts: one module a process, and the two faces, `cli` and `console`."""
