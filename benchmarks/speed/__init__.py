"""How fast fits are, beside what a user would pick instead."""
