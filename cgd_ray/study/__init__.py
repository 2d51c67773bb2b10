"""Studies: arms x seeds on one shared set of drafts, critiques and refinements.

An arm is what is changed of a run, a cell is one training of it, a match is what all arms of a
comparison spend the same of.
"""
