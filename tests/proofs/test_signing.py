"""Keys and signed heads: the texts of C2SP signed notes, and that every change of one is refused."""

from __future__ import annotations

import pytest

from agents_eventlog.eventlog import Head, SignedHead, SigningKey, generate_signing_key
from agents_eventlog.eventlog.errors import ProofError
from agents_eventlog.eventlog.proofs import checkpoint
from agents_eventlog.eventlog.proofs.signing import PublicKey
from tests.proofs.conftest import SIGNING

PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = (
    b"If you think cryptography is the answer to your problem,\n"
    b"then you don't know what your problem is.\n"
)
SIGNATURE = (
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
)
"""The example of Go's ``golang.org/x/mod/sumdb/note``, whose secret key is in ``conftest``."""
HEAD = Head(11, bytes(range(32)))


def note(key: SigningKey) -> str:
    return checkpoint.signed(key, 11, b"r" * 32, HEAD)


def test_keys_and_signatures_are_those_of_gos_example(key: SigningKey) -> None:
    import base64

    assert key.public_key == PUBLIC
    assert base64.b64encode(key.sign(TEXT)).decode() == SIGNATURE
    assert PublicKey(PUBLIC).is_by(TEXT, base64.b64decode(SIGNATURE)[4:])


def test_a_signed_head_is_a_checkpoint_byte_by_byte(key: SigningKey) -> None:
    assert note(key) == (
        "PeterNeumann\n"
        "11\n"
        "cnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=\n"
        "head 11:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
        "\n"
        "— PeterNeumann x08goxJwkI1jZ85ERbjG4I6GePo0ZoSK63kkZvMOxcYnq21XXT9SCKva03S6X31MVbBOg8"
        "Tz1ls5Xbj2GeQ9jnCE7QI=\n"
    )
    signed = SignedHead.parse(note(key), PUBLIC)
    assert signed == ("PeterNeumann", 11, b"r" * 32, HEAD, PUBLIC)
    assert SignedHead.parse(note(key).encode()).signed_by is None


def test_a_generated_key_has_a_name_and_signs() -> None:
    key = SigningKey(generate_signing_key("example.com/support"))
    assert SignedHead.parse(note(key), f" {key.public_key}\n").name == "example.com/support"
    first, second = (SigningKey(generate_signing_key()) for _ in range(2))
    assert first.name.startswith("eventlog/")
    assert first.name != second.name
    seed = SIGNING.rpartition("+")[2]
    assert seed not in repr(SigningKey(SIGNING)) + repr(PublicKey(PUBLIC))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b"])
def test_a_name_that_does_not_fit_in_a_note_is_refused(name: str) -> None:
    with pytest.raises(ProofError, match="invalid name"):
        generate_signing_key(name)


@pytest.mark.parametrize(("kind", "text"), [(PublicKey, PUBLIC), (SigningKey, SIGNING)])
def test_every_cut_or_mistyped_key_is_refused(kind: type, text: str) -> None:
    changed = [text[:end] for end in range(len(text))] + [text[1:], f"{text}A", "é" + text]
    changed += [
        text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        for place in range(len(text))
    ]
    for each in changed:
        with pytest.raises(ProofError):
            kind(each)


def test_every_single_changed_byte_of_a_signed_head_is_refused(key: SigningKey) -> None:
    text = note(key).encode()
    for place in range(len(text)):
        for bit in (1, 128):
            changed = text[:place] + bytes([text[place] ^ bit]) + text[place + 1 :]
            with pytest.raises(ProofError):
                SignedHead.parse(changed, PUBLIC)
        with pytest.raises(ProofError):
            SignedHead.parse(text[:place], PUBLIC)


def test_signatures_of_others_are_left_alone_and_the_own_one_is_needed(key: SigningKey) -> None:
    other = SigningKey(generate_signing_key("PeterNeumann"))
    text, signature = note(key).split("\n\n")
    cosigned = note(other).split("\n\n")[1]
    assert SignedHead.parse(f"{text}\n\n{cosigned}{signature}", PUBLIC).size == 11
    with pytest.raises(
        ProofError, match=r"another key: expected PeterNeumann\+c74f20a3, got Peter"
    ):
        SignedHead.parse(f"{text}\n\n{cosigned}", PUBLIC)
    with pytest.raises(ProofError, match="invalid signed head"):
        SignedHead.parse(f"{text}\n\n{cosigned * 101}", PUBLIC)


@pytest.mark.parametrize(
    "lines",
    [
        ["x", "11", "cm9vdA==", f"head {HEAD}"],
        ["x", "11", "cnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI="],
        ["x", "011", "cnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=", f"head {HEAD}"],
        ["x", "11", "?", f"head {HEAD}"],
        ["x", "11", "cnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=", "head 11"],
        ["x", "11", "cnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=", f"head {HEAD}", ""],
    ],
)
def test_a_signed_note_that_is_no_head_is_refused(lines: list[str], key: SigningKey) -> None:
    text = "".join(f"{line}\n" for line in lines)
    import base64

    signature = base64.b64encode(key.sign(text.encode())).decode()
    with pytest.raises(ProofError, match="invalid signed head"):
        SignedHead.parse(f"{text}\n— {key.name} {signature}\n", PUBLIC)


def test_a_head_of_another_log_by_the_same_key_is_refused(key: SigningKey) -> None:
    import base64

    text = note(key).split("\n\n")[0].replace("PeterNeumann", "elsewhere") + "\n"
    signature = base64.b64encode(key.sign(text.encode())).decode()
    with pytest.raises(ProofError, match="of another log: expected 'PeterNeumann'"):
        SignedHead.parse(f"{text}\n— {key.name} {signature}\n", PUBLIC)
