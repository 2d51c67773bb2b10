"""Answers asked for, graded and compared."""
