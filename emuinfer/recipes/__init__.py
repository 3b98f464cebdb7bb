"""How everything in data/ was made; nothing here is needed at run time."""
