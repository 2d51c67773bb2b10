"""What the teacher's critiques are worth: leaks, verdicts, fixes, harms, information."""

VERSION = "audit/v1"  # new with any change of the rules in this package
