"""How a setting says that problems are not in files."""

HUB = "hf:"  # a data set of the Hugging Face hub
GENERATED = "reasoning-gym:"  # a family of generated problems
