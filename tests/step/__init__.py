"""The steps themselves: what is checked before one, and what is left after one that went wrong."""
