"""Model files, damaged in thousands of ways: each loads, or is refused in a sentence that names it (`make fuzz`)."""
