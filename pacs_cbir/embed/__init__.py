"""From a Volume to embeddings. Knows no database."""
