"""The demo: the whole house on one machine, as separate processes, with a real film."""

from peer.demo.show import run_demo

__all__ = ["run_demo"]
