"""Bulk bytes from one process to another: Penstock beside stock aioquic, libtorrent and nginx."""
