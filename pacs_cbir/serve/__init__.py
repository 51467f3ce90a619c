"""Door 3: HTTP. The only room that knows fastapi."""
