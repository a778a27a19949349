"""A day's load on one server: prompts of all tasks, interrupted, broken and mixed, with what it holds read between
them (`make soak`)."""
