"""The student behind an OpenAI-compatible address, without critiques."""
