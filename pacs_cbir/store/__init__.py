"""Everything durable: rows and files. The only room that knows sqlalchemy."""
