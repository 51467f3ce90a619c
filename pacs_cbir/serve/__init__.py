"""HTTP. The only room that knows fastapi."""
