"""Problems, loaded, identified and stored."""
