"""The test vectors on the page of the protocol, opened and written by code of the test's own."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

PAGE = Path(__file__).parent.parent / "docs" / "protocol.md"
NUMBER, ASK_KEY, ANSWER_KEY = bytes.fromhex("01020304050607"), bytes(range(16)), bytes(range(16, 32))


def vector(name: str) -> bytes:
    found = re.search(rf"^    {name} +([0-9a-f]+)$", PAGE.read_text(), re.MULTILINE)
    assert found, name
    return bytes.fromhex(found[1])


def sealed(kind: int, counter: int, body: bytes) -> bytes:
    """AES-GCM by its parts, not by the code under test."""
    head = bytes([kind]) + NUMBER + counter.to_bytes(8, "big")
    nonce = bytes(4) + counter.to_bytes(8, "big")
    cipher = Cipher(algorithms.AES(ASK_KEY if kind == 8 else ANSWER_KEY), modes.GCM(nonce)).encryptor()
    cipher.authenticate_additional_data(head)
    return head + cipher.update(body) + cipher.finalize() + cipher.tag


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def test_the_announce_is_as_the_page_says() -> None:
    body = bytes([1, 1, 4, 0]) + b"\x0a" * 32 + u32(3) + u32(10) + u32(0)
    assert vector("announce") == sealed(8, 1, body)
    assert len(vector("announce")) == 80
    assert vector("accepted") == sealed(9, 1, bytes([1, 0, 0, 0]))


def test_the_locate_is_as_the_page_says() -> None:
    whole = sealed(8, 2, bytes([2, 5, 1, 0]) + b"\x0a" * 32 + bytes(1132))
    assert len(whole) == 1200
    assert vector("locate, front") == whole[:64]
    assert vector("locate, tag") == whole[-16:]


def test_the_answers_are_as_the_page_says() -> None:
    address = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])
    source = b"\x0b" * 32 + address + (4430).to_bytes(2, "big") + bytes([0, 4, 0, 0])
    body = bytes([2, 3, 1, 0]) + b"\x0c" * 32 + source + b"\x01\x05north"
    assert vector("redirect") == sealed(9, 2, body)
    assert vector("refusal") == sealed(9, 2, bytes([3, 4, 0, 2]) + b"no")
