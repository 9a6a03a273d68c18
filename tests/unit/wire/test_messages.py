"""Every message as bytes: whoever changes one sees that other releases read it too."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from jetmap.wire import messages, presence, worker_start
from jetmap.wire.constants import Constant, ConstantsAnswer, ConstantsAsk, Given, Kwargs
from jetmap.wire.memory_files import FilePlace
from jetmap.wire.messages import (
    ArrivedHead,
    BatchTerms,
    Cause,
    Chunk,
    ChunkHead,
    Claim,
    ClaimAnswer,
    ClaimEntry,
    Confirmation,
    Crash,
    Delivery,
    ErrorKind,
    ErrorRecord,
    Final,
    ForwardedDelivery,
    FunctionRef,
    Hurry,
    PartRequest,
    Ping,
    Place,
    Region,
    Report,
    ReportCounts,
    ReportHead,
    Rest,
    Together,
    ValuesPlace,
    Withdraw,
    encode,
)
from jetmap.wire.presence import (
    CoreDetail,
    CoreStatus,
    FunctionInfo,
    Presence,
    PresenceHead,
    read_presence,
)
from jetmap.wire.protocol import understands
from jetmap.wire.worker_start import (
    Broken,
    Brought,
    Importing,
    Joined,
    Loaded,
    Ready,
    Setup,
    StartFailed,
    Unshared,
)

# A changed line here is a change of the protocol: see ``PROTOCOL``.
GOLDEN: list[tuple[Any, str]] = [
    (
        FunctionRef("tasks", "f", "/t.py", b"v", "d1", "/m.py", "Python 3.11, cloudpickle 3.1"),
        (
            "98a57461736b73a166a52f742e7079c40176a26431a52f6d2e7079bc507974686f6e2033"
            "2e31312c20636c6f75647069636b6c6520332e31c2"
        ),
    ),
    (Constant("d1", 700_000), "92a26431ce000aae60"),
    (Kwargs(b"r", {"t": Constant("d1", 7)}), "93c4017281a17492a2643107a0"),
    (
        ConstantsAsk("_INBOX.a1.constants", ["d1"]),
        "92b35f494e424f582e61312e636f6e7374616e747391a26431",
    ),
    (
        ConstantsAnswer("_INBOX.d1", {"d1": FilePlace("b1", 7, 8, 9, 10, "/f")}, ["d2"]),
        "93a95f494e424f582e643181a2643196a262310708090aa22f6691a26432",
    ),
    (
        Given("d1", 7, None, "no"),
        "84a6646967657374a26431a473697a6507a5706c616365c0a77265667573616ca26e6f",
    ),
    (Region(4096, 700_000, 7), "93cd1000ce000aae6007"),
    (ValuesPlace(3, Region(4096, 700_000, 7)), "920393cd1000ce000aae6007"),
    (
        Place("_INBOX.d1", 700_000),
        "93a95f494e424f582e6431ce000aae60c0",
    ),
    (
        PartRequest("m1", 2, 700_000, 524_288, 175_712),
        "95a26d3102ce000aae60ce00080000ce0002ae60",
    ),
    (
        ArrivedHead(
            "m1", 2, 1, "f", "json", 10, 3, "_INBOX.d1", 5.0, 0.2, msgspec.Raw(b"\xc4\x00")
        ),
        (
            "dc0017a26d310201a166a46a736f6e0a03a95f494e424f582e6431cb4014000000000000"
            "cb3fc999999999999ac400c400c0c400cb000000000000000001c2ffc0c3a0c0c2"
        ),
    ),
    (
        ChunkHead("m1", 2, 1, "f", "json", 10, 3, "_INBOX.d1", 5.0, 0.2),
        ("9aa26d310201a166a46a736f6e0a03a95f494e424f582e6431cb4014000000000000cb3fc999999999999a"),
    ),
    (
        Chunk(
            "m1",
            2,
            1,
            "f",
            "json",
            10,
            3,
            "_INBOX.d1",
            None,
            0.2,
            b"[1,2,3]",
            b"{}",
            FunctionRef("tasks", "f"),
            b"s",
            0.5,
            3,
            True,
            1,
            Place("_INBOX.d1", 9),
            False,
            "00-0a-0b-01",
            BatchTerms(64, 0.5),
        ),
        (
            "dc0017a26d310201a166a46a736f6e0a03a95f494e424f582e6431c0cb3fc99999999999"
            "9ac4075b312c322c335dc4027b7d98a57461736b73a166c0c0a0c0a0c2c40173cb3fe000"
            "000000000003c30193a95f494e424f582e643109c0c2ab30302d30612d30622d30319240"
            "cb3fe0000000000000c2"
        ),
    ),
    (
        BatchTerms(64, 0.5),
        "9240cb3fe0000000000000",
    ),
    (
        Together(2, 5, [32, 7]),
        "930205922007",
    ),
    (
        Cause(["tasks:Wrong", "builtins:ValueError"], b"p"),
        ("9292ab7461736b733a57726f6e67b36275696c74696e733a56616c75654572726f72c40170"),
    ),
    (
        ErrorRecord(3, "raised", "ValueError", "no", "Traceback", {"a": 1}, Cause(["a:B"])),
        (
            "9703a6726169736564aa56616c75654572726f72a26e6fa954726163656261636b81a161"
            "019291a3613a42c400"
        ),
    ),
    (
        Crash(3, "died", "killed", 9, None, 1024, "h1", 0.25),
        "9903a464696564a66b696c6c656409c0cd0400a26831cb3fd000000000000001",
    ),
    (
        Final(13, Crash(3, "timeout", "late")),
        "920d9903a774696d656f7574a46c617465c0c0c0a0cb000000000000000001",
    ),
    (
        Rest(11, 0.5),
        "920bcb3fe0000000000000",
    ),
    (
        ReportHead("m1", 2, 1, 10, 3),
        "95a26d3102010a03",
    ),
    (
        ErrorKind(3, "raised"),
        "9203a6726169736564",
    ),
    (
        ReportCounts("m1", 2, 1, 10, 3, msgspec.Raw(b"\xc4\x02[]"), [ErrorKind(3, "lost")], 0.5),
        "98a26d3102010a03c4025b5d919203a46c6f7374cb3fe0000000000000",
    ),
    (
        Report(
            "m1",
            2,
            1,
            10,
            3,
            b"[1,2,3]",
            [ErrorRecord(11, "lost", "WorkerLost", "gone")],
            0.5,
            Final(13),
            7,
            9,
            Rest(11, 0.5),
            2,
        ),
        (
            "9fa26d3102010a03c4075b312c322c335d91970ba46c6f7374aa576f726b65724c6f7374"
            "a4676f6e65c0c0c0cb3fe0000000000000920dc00709920bcb3fe00000000000000290c0"
        ),
    ),
    (
        Delivery("a1", "_INBOX.a1", 5, -1, [Report("m1", 2, 1, 10, 0, b"[]", [], 0.0)]),
        (
            "95a26131a95f494e424f582e613105ff919fa26d3102010a00c4025b5d90cb0000000000"
            "000000c00000c00190c0"
        ),
    ),
    (
        ForwardedDelivery("a1", "_INBOX.a1", 5, -1, [msgspec.Raw(b"\x90")]),
        "95a26131a95f494e424f582e613105ff9190",
    ),
    (
        ClaimEntry("m1", 2, 1, 11, 2),
        "95a26d3102010b02",
    ),
    (
        Claim("a1", "h1", "_INBOX.a1", 4, [ClaimEntry("m1", 2, 1)]),
        "95a26131a26831a95f494e424f582e6131049195a26d310201c001",
    ),
    (
        ClaimAnswer("d1", 4, [("m1", 2)]),
        "94a5636c61696da26431049192a26d3102",
    ),
    (
        Confirmation([5, 6]),
        "92a7636f6e6669726d920506",
    ),
    (
        Ping(5, "a1", 3),
        "94a470696e6705a2613103",
    ),
    (
        Hurry("m1", 4, 0.05),
        "94a56875727279a26d3104cb3fa999999999999a",
    ),
    (
        Withdraw("m1"),
        "92a87769746864726177a26d31",
    ),
    (
        CoreDetail(8, 0, "m1", 1.5, 4),
        "950800a26d31cb3ff800000000000004",
    ),
    (
        FunctionInfo(
            *("f", "Doc.", {"type": "integer"}, {}, {}, 5.0, 3, "tasks", ["item"]), batch=8
        ),
        (
            "8ea46e616d65a166a3646f63a4446f632ea46974656d81a474797065a7696e7465676572"
            "a576616c756580a66b776172677380a774696d656f7574cb4014000000000000a8617474"
            "656d70747303a66d6f64756c65a57461736b73a7756e747970656491a46974656da77265"
            "747269657300a77265667573616ca0a5626174636808a66c696e676572cb000000000000"
            "0000ac6d61785f706172616c6c656cc0"
        ),
    ),
    (
        CoreStatus(8, 0, "idle", "f", "m1", 1.5, 4),
        (
            "87a370696408a363707500a57374617465a469646c65a866756e6374696f6ea166a36d61"
            "70a26d31a77365636f6e6473cb3ff8000000000000a66368756e6b7304"
        ),
    ),
    (
        Presence(
            "a1",
            "h1",
            7,
            "default",
            "0123456789ab",
            "v1",
            3,
            2,
            2,
            1,
            False,
            False,
            [],
            [],
            1,
            False,
            "no",
            True,
            "u1",
            {"m": "no"},
            "3.11.7",
            {"jetmap": "0.4.0"},
            msgspec.Raw(encode([("f", "ok", 3)])),
            [("f", "died", 1)],
            1,
            2,
            "b1",
            5,
            1,
            4096,
            65536,
            1,
            digest="d1",
            running=["f"],
            cells=b"\x03\x01",
            details=msgspec.Raw(encode([CoreDetail(8, 0, "m1", 1.5, 4)])),
            now=2.5,
        ),
        (
            "de0023a56167656e74a26131a4686f7374a26831a370696407a4706f6f6ca76465666175"
            "6c74a56f66666572ac303132333435363738396162a776657273696f6ea27631a472616e"
            "6b03a5636f72657302a5726561647902a46275737901a8647261696e696e67c2a4676f6e"
            "65c2a966756e6374696f6e7390a7776f726b65727390a770656e64696e6701a76661696c"
            "757265a26e6fa6747275737473c3a56c6f63616ca27531a662726f6b656e81a16da26e6f"
            "a6707974686f6ea6332e31312e37a87061636b6167657381a66a65746d6170a5302e342e"
            "30a56974656d739193a166a26f6b03a7637261736865739193a166a46469656401a87265"
            "6379636c656401ae73746172745f6661696c7572657302a76d616368696e65a26231a870"
            "726f746f636f6c05a66d656d6f7279cd1000ac6d656d6f72795f6c696d6974ce00010000"
            "ac6d656d6f72795f6b696c6c7301a6646967657374a26431a772756e6e696e6791a166a5"
            "63656c6c73c4020301a764657461696c7391950800a26d31cb3ff800000000000004a36e"
            "6f77cb4004000000000000"
        ),
    ),
    (
        PresenceHead("a1", "h1", 2, 1, {"jetmap": "0.4.0"}, True),
        (
            "86a56167656e74a26131a4686f7374a26831a870726f746f636f6c02af6f6c646573745f"
            "70726f746f636f6c01a87061636b6167657381a66a65746d6170a5302e342e30a4676f6e"
            "65c3"
        ),
    ),
    (
        Setup(
            tasks=["tasks.py"],
            modules=["m"],
            main="/main.py",
            trust=True,
            memory_limit=1024,
            max_value=2,
            max_report=3,
            grows=True,
            key=b"k",
            output_bytes=5,
            log_level="debug",
        ),
        (
            "de0011a57461736b7391a87461736b732e7079a76d6f64756c657391a16da46d61696ea8"
            "2f6d61696e2e7079a57472757374c3ac6d656d6f72795f6c696d6974cd0400a96d61785f"
            "76616c756502aa6d61785f7265706f727403a6696e6c696e65ce00080000a567726f7773"
            "c3a36b6579c4016bac6f75747075745f627974657305a96c6f675f6c6576656ca5646562"
            "7567aa6c6f675f666f726d6174a474657874ac6c6f61645f74696d656f7574cb4072c00000000000aa756e6c6f616461626c6580"
            "a670726f76656e90a762726f7567687490"
        ),
    ),
    (
        Ready([FunctionInfo("f")], "s1", ["/t.py"], ["d1"], {"m.load": 1.5}),
        (
            "85a966756e6374696f6e73918ea46e616d65a166a3646f63a0a46974656d80a576616c75"
            "6580a66b776172677380a774696d656f7574c0a8617474656d707473c0a66d6f64756c65"
            "a0a7756e747970656490a77265747269657300a77265667573616ca0a5626174636800a6"
            "6c696e676572cb0000000000000000ac6d61785f706172616c6c656cc0a6736f75726365"
            "a27331a566696c657391a52f742e7079a76469676573747391a26431a56c6f61647381a6"
            "6d2e6c6f6164cb3ff8000000000000"
        ),
    ),
    (
        Importing("m:f()", "/m.py", "m.load", 300.0),
        (
            "84a4686f6d65a56d3a662829a466696c65a52f6d2e7079a66c6f61646572a66d2e6c6f61"
            "64a77365636f6e6473cb4072c00000000000"
        ),
    ),
    (
        Broken("m:f()", "no", ["/m.py"], "m.load"),
        (
            "84a4686f6d65a56d3a662829a474657874a26e6fa566696c657391a52f6d2e7079a66c6f"
            "61646572a66d2e6c6f6164"
        ),
    ),
    (
        Brought("f", FunctionRef("m", "f")),
        ("82a46e616d65a166a372656698a16da166c0c0a0c0a0c2"),
    ),
    (
        Loaded({"m.load": 1.5}, Brought("f", FunctionRef("m", "f"))),
        (
            "82a56c6f61647381a66d2e6c6f6164cb3ff8000000000000a762726f7567687482a46e61"
            "6d65a166a372656698a16da166c0c0a0c0a0c2"
        ),
    ),
    (
        Joined("_INBOX.d1", 8, 9, 3),
        "84a5696e626f78a95f494e424f582e6431a56974656d7308a676616c75657309a56172656e6103",
    ),
    (
        Unshared("_INBOX.d1", 8, "no"),
        "83a5696e626f78a95f494e424f582e6431a56974656d7308a76d657373616765a26e6f",
    ),
    (
        StartFailed("ImportError", "no", "Traceback", ["/m.py"]),
        (
            "84a474797065ab496d706f72744572726f72a76d657373616765a26e6fa9747261636562"
            "61636ba954726163656261636ba566696c657391a52f6d2e7079"
        ),
    ),
]

# Recorded from the release before messages had a number of their protocol.
OLD_PRESENCE = bytes.fromhex(
    "de0012a56167656e74a26131a4686f7374a26831a370696407a4706f6f6ca764656661756c74a56f"
    "66666572ac303132333435363738396162a776657273696f6ea27631a472616e6b03a5636f726573"
    "02a5726561647902a46275737901a8647261696e696e67c2a4676f6e65c2a966756e6374696f6e73"
    "9188a46e616d65a166a3646f63a4446f632ea46974656d81a474797065a7696e7465676572a57661"
    "6c756581a474797065a7626f6f6c65616ea66b776172677380a774696d656f7574cb401400000000"
    "0000a8617474656d70747303a66d6f64756c65a57461736b73a7776f726b6572739187a370696408"
    "a363707500a57374617465a469646c65a866756e6374696f6ea166a36d6170a26d31a77365636f6e"
    "6473cb3ff8000000000000a66368756e6b7304a770656e64696e6701a8656d626564646564c2a766"
    "61696c757265c0a6747275737473c3"
)
OLD_CHUNK = bytes.fromhex(
    "9da26d310201a166a46a736f6e0a03a95f494e424f582e6431cb4014000000000000cb3fc9999999"
    "99999ac4075b312c322c335dc4077b226b223a317d95a57461736b73a166c0c0a26431"
)


@pytest.mark.parametrize(("message", "golden"), GOLDEN, ids=lambda v: type(v).__name__)
def test_every_message_has_its_bytes(message: Any, golden: str) -> None:
    assert encode(message).hex() == golden
    assert msgspec.msgpack.decode(bytes.fromhex(golden), type=type(message)) == message


def test_no_message_is_missing_above() -> None:
    every = {
        value
        for module in (messages, presence, worker_start)
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == module.__name__
    }
    assert every - {type(message) for message, _ in GOLDEN} == {messages.WireMessage}


def test_messages_of_a_kind_are_told_apart() -> None:
    for kind, (message, _) in (
        (messages.AgentMail, next(g for g in GOLDEN if isinstance(g[0], Confirmation))),
        (messages.Control, next(g for g in GOLDEN if isinstance(g[0], Withdraw))),
    ):
        assert type(message) in get_args(kind)
        assert msgspec.msgpack.decode(encode(message), type=kind) == message


def test_a_field_more_at_the_end_is_passed_over() -> None:
    for message, golden in GOLDEN:
        if isinstance(message, messages.WireMessage):
            longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(bytes.fromhex(golden)), "new"])
            assert msgspec.msgpack.decode(longer, type=type(message)) == message


def test_the_last_release_without_a_number_is_understood() -> None:
    old = read_presence(OLD_PRESENCE)
    assert (old.host, old.protocol, old.oldest_protocol) == ("h1", 1, 1)
    assert [f.name for f in old.functions] == ["f"] and old.python == ""
    assert understands(old.protocol, old.oldest_protocol)
    chunk = msgspec.msgpack.decode(OLD_CHUNK, type=Chunk)
    assert (chunk.items, chunk.each, chunk.seal, chunk.protocol) == (b"[1,2,3]", 0.0, b"", 1)
    assert chunk.ref is not None and chunk.ref.pickles == ""


def test_that_release_reads_what_is_sent_now() -> None:
    """It passes over what was added behind the fields that it knows."""
    old = msgspec.msgpack.decode(OLD_CHUNK)
    (chunk,) = [g for g, _ in GOLDEN if type(g) is Chunk]
    assert [type(v) for v in msgspec.msgpack.decode(encode(chunk))[: len(old) - 1]] == [
        *(type(v) for v in old[:8]),
        type(None),
        *(type(v) for v in old[9:-1]),
    ]
    (announced,) = [g for g, _ in GOLDEN if type(g) is Presence]
    required = msgspec.msgpack.decode(OLD_PRESENCE)
    for name in ("embedded", "failure", "pending", "trusts"):
        required.pop(name, None)
    assert set(required) <= set(msgspec.msgpack.decode(encode(announced)))
