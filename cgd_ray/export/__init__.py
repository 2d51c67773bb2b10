"""The generated chains as a data set that others can load."""
