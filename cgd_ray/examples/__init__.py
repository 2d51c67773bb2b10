"""Chains as tokens, masks and packed batches."""
