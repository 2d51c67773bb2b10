"""The fine-tuning of the student."""
