"""What so many prompts need: nodes, hours, dollars. Pure.

figures.py   what goes in, each number measured, assumed or given, with its source
nodes.py     GPUs and prices of EC2 types
needs.py     the arithmetic
page.py      the page that `cgd estimate --cluster` prints
"""
