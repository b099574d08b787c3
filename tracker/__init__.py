"""The central control server: who holds what, and who is sent where."""
