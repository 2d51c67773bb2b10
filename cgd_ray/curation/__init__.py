"""What training may use, and why not the rest."""
