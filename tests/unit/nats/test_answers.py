"""JetStream's answers: numbers and texts are read here, and nowhere else."""

from __future__ import annotations

import pytest

from jetmap.nats.answers import (
    JetStreamError,
    Published,
    checked,
    fate_of,
    holds_subject,
    lacks_room,
)
from jetmap.nats.errors import ADVICE


def refused(err_code: int, description: str = "") -> JetStreamError:
    return JetStreamError(400, err_code, description)


def test_an_answer_is_decoded_or_is_its_refusal() -> None:
    assert checked(b'{"seq":3}') == {"seq": 3}
    with pytest.raises(JetStreamError) as caught:
        checked(b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}')
    assert (caught.value.code, caught.value.err_code) == (503, 10077)
    assert str(caught.value) == "JetStream refuses: maximum bytes exceeded (error 10077)"
    with pytest.raises(JetStreamError):
        checked(b'{"error":{"code":400}}')


def test_a_stream_that_has_the_subject_is_told_from_a_full_one() -> None:
    assert holds_subject(refused(10077, "maximum messages per subject exceeded"))
    assert not holds_subject(refused(10077, "maximum messages exceeded"))
    assert not holds_subject(refused(10071, "wrong last sequence per subject: 3"))


def test_a_lack_of_room_is_known_by_its_number_or_the_systems_words() -> None:
    assert all(code in ADVICE or code == 10077 for code in (10002, 10023, 10028, 10047, 10077))
    assert lacks_room(refused(10023))
    assert lacks_room(refused(10051, "write 1.blk: no space left on device"))
    assert lacks_room(refused(10051, "write 1.blk: disk quota exceeded"))
    assert not lacks_room(refused(10059, "stream not found"))


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        (b'{"stream":"S","seq":1}', Published.STORED),
        (b'{"stream":"S","seq":1,"duplicate":true}', Published.STORED),
        (
            b'{"error":{"code":503,"err_code":10077,'
            b'"description":"maximum messages per subject exceeded"}}',
            Published.THERE,
        ),
        (
            b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}',
            Published.REFUSED,
        ),
        (b"", Published.REFUSED),
    ],
)
def test_an_answer_to_a_publish(answer: bytes, fate: Published) -> None:
    assert fate_of(answer) is fate
