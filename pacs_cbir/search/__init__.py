"""The vector index and the query by example. The only room that knows faiss."""
