"""Secrets, and the key slots of encrypted images. See `blockyard.base.errors`. No field ever holds a secret's
value."""

from dataclasses import dataclass

from blockyard.base.errors.base import Code, ImageError, StateError


@dataclass(eq=False)
class SecretUnreadable(StateError):
    """A secret is there, but not what it is made of."""

    name: str
    why: str
    reason = "SECRET_UNREADABLE"
    code = Code.FAILED_PRECONDITION
    template = "secret {name!r} cannot be used: {why}"
    advice = "Mend the file it is read from, or delete the secret and store it again."


@dataclass(eq=False)
class ImageLocked(ImageError):
    """An encrypted image was opened without its key, and its data was asked for."""

    image: str
    reason = "IMAGE_LOCKED"
    code = Code.FAILED_PRECONDITION
    template = "{image} is encrypted and was opened without its key"
    advice = "Open it with key_secret (qcow2: encrypt.key_secret), naming a secret of SecretService."


@dataclass(eq=False)
class KeyRefused(ImageError):
    """A secret opens no key slot of an image."""

    image: str
    secret: str
    tried: int
    reason = "KEY_REFUSED"
    code = Code.FAILED_PRECONDITION
    template = "{image}: secret {secret!r} opens none of its {tried} key slots"
    advice = "Name the right secret; a file's secret includes a newline at its end, if there is one."


@dataclass(eq=False)
class KeySlotUnavailable(ImageError):
    """A key slot cannot be changed as asked."""

    image: str
    slot: str
    why: str
    reason = "KEY_SLOT_UNAVAILABLE"
    code = Code.FAILED_PRECONDITION
    template = "{image}: key slot {slot}: {why}"
    advice = "Choose another slot or erase one first; force overrides what protects the last key."
