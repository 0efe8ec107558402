"""The contracts' modules that are written from Python: numbers, the protocol, the operators' forms.

python -P -m ree.settlement.generated    # writes them again; a test compares
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill, indent

from ree.compiler.ir import Kind
from ree.compiler.layout import (
    GIVEN,
    INSTANCE,
    LOCAL,
    MAX_SOURCES,
    RECORD,
    RETURNED,
    ROW_CONSTANT,
    ROW_INPUT,
    ROW_NODE,
    ROW_NUMBER,
    SOURCE,
    TYPE,
    InterfaceLeaf,
    Layout,
    RowLeaf,
)
from ree.kernels import registry
from ree.kernels.forms import Form
from ree.settlement import layout, numbers
from ree.settlement.compile import CONTRACTS
from ree.verde.protocol import AT_LEAF, FAN, VERSION, Phase, Reason, Side, Tree, TreeKind

HEAD = '''# pragma version 0.4.3
"""
@title {title}
@notice {notice}
@dev Written by settlement/generated.py from {sources}; do not edit.
"""
'''


PAD = "    "


def protocol() -> str:
    """The module `protocol.vy`."""
    groups: dict[str, Mapping[str, int | str]] = {
        "masks, and the sign of an i64": {
            **{f"MASK{bits}": f"2**{bits} - 1" for bits in (8, 32, 48, 64, 128)}, "SIGN64": "2**63",
        },
        "sides": {s.name: s.number for s in Side if s.number},
        "phases": {f"PHASE_{p.name}": p.number for p in Phase},
        "phases of the challenger, a bit each; phases at a leaf by kind of tree, four bits each": {
            "PHASES_OF_CHALLENGER": sum(1 << p.number for p in Phase if p.player is Side.CHALLENGER),
            "PHASES_AT_LEAF": sum(p.number << 4 * k.number for k, p in AT_LEAF.items()),
        },
        "kinds of trees": {f"KIND_{k.name}": k.number for k in TreeKind},
        "trees of tensors": {f"TREE_{t.name}": t.number for t in Tree},
        "reasons of a verdict": {f"REASON_{r.name}": r.number for r in Reason if r.number},
        "levels that a reveal descends": {"FAN": FAN},
        "bytes of a move, at most": {"MOVE_BYTES": layout.MAX_MOVE},
        "version of a state": {"STATE_VERSION": VERSION},
        "a state: its bytes, words by number, numbers by their bits from a word's low end": {
            "STATE_BYTES": layout.STATE.size,
            "WORD_HEAD": layout.HEAD, "WORD_NUMBERS": layout.STATE["element"].word, "WORD_PLACE": layout.PLACE,
            **{f"WORD_{f.name.upper()}": f.word for f in layout.STATE if not f.is_number},
            **{f"STATE_{f.name.upper()}": f.shift for f in layout.STATE if f.is_number and f.name != "version"},
            "STATE_VERSION_AT": layout.STATE["version"].shift,
        },
        "clocks: bits from the low end": {f"CLOCKS_{f.name.upper()}": f.shift for f in layout.CLOCKS},
        "an instance and what follows it in a statement: offsets": _offsets("STATEMENT", layout.STATEMENT)
        | {"INSTANCE_BYTES": INSTANCE.size},
        "a training run: offsets": _offsets("RUN", layout.RUN),
        "facts of a job: offsets behind the instance": {
            "ONE_RUN_BYTES": layout.ONE_RUN.size, "TRAINING_BYTES": layout.TRAINING.size,
            "TRAINING_WEIGHTS": layout.TRAINING["weights_root"].offset,
            "TRAINING_RUN": layout.TRAINING["initial"].offset,
        },
        "the record of a value: offsets": _offsets("RECORD", RECORD),
        "kinds of sources, and of what they may be": {
            **{f"SOURCE_{k.name}": k.value for k in Kind}, "SOURCE_LOCAL": LOCAL, "SOURCE_BYTES": SOURCE.size,
            "MAX_SOURCES": MAX_SOURCES, "MAX_HOPS": layout.MAX_HOPS, "MAX_BLOBS": layout.MAX_BLOBS,
        },
        "leaves of a row program: the first byte, bytes, offsets": {
            **{f"ROW_{leaf.name}": leaf.value for leaf in RowLeaf},
            "ROW_INPUT_BYTES": ROW_INPUT.size, "ROW_INPUT_OPERAND": ROW_INPUT["operand"].offset,
            "ROW_INPUT_RULE": ROW_INPUT["rule"].offset, "ROW_CONSTANT_BYTES": ROW_CONSTANT.size,
            "ROW_NODE_BYTES": ROW_NODE.size, "ROW_NUMBER_BYTES": ROW_NUMBER.size,
            "ROW_NUMBER_FIRST": ROW_NUMBER["first"].offset, "ROW_NUMBER_OFFSET": ROW_NUMBER["offset"].offset,
        },
        "leaves of the interface: the first byte, bytes": {
            **{f"INTERFACE_{leaf.name}": leaf.value for leaf in InterfaceLeaf},
            "GIVEN_BYTES": GIVEN.size, "RETURNED_BYTES": RETURNED.size, "TYPE_BYTES": TYPE.size,
        },
        "claims, challenges, verdicts": {
            **{f"CLAIM_{x.name}": x.value for x in layout.ClaimStatus},
            **{f"CHALLENGE_{x.name}": x.value for x in layout.ChallengeStatus},
            **{x.name: x.value for x in layout.CourtVerdict},
        },
    }  # fmt: skip
    head = HEAD.format(
        title="Protocol",
        notice="The numbers of disputes, and where fields stand.",
        sources="verde/protocol.py and settlement/layout.py",
    )
    return "".join([head, *(_group(title, values) for title, values in groups.items())])


def _offsets(name: str, fields: Layout) -> dict[str, int | str]:
    """The bytes of a layout and where its fields start."""
    return {f"{name}_BYTES": fields.size, **{f"{name}_{f.name.upper()}": f.offset for f in fields}}


def _group(title: str, values: Mapping[str, int | str]) -> str:
    lines = [f"{name}: constant(uint256) = {value}\n" for name, value in values.items()]
    return "".join([f"\n# {title}\n", *lines])


def forms() -> str:
    """The module `forms.vy`."""
    masks = {
        "COUNTED": [f for f in Form if f.needs.counted],
        "RULED": [f for f in Form if f.needs.rule],
        "ATTRIBUTED": [f for f in Form if f.needs.attributes],
    }
    sums = {name: " + ".join(f"2**{f.name}" for f in found) for name, found in masks.items()}
    head = HEAD.format(
        title="Forms",
        notice="The operators that can be decided, and how each comes about.",
        sources="kernels/forms.py and the registry",
    )
    parts = [
        head,
        _group("forms", {f.name: f.number for f in Form if f.number}),
        "\n# a bit each: those whose number of operations follows from an index rule, and those of which an\n"
        "# operation needs the index rule, the attributes\n",
        *(
            f"{name}: constant(uint256) = (\n{indent(fill(text, 100), PAD)}\n)\n"
            for name, text in sums.items()
        ),
        '\n\n@internal\n@pure\ndef of(opcode: uint256) -> uint256:\n    """\n    @notice Form of an operator, '
        '0 if disputes about it cannot be decided.\n    """\n',
        *_branches(_ranges(), 1),
    ]
    return "".join(parts)


def _ranges() -> list[tuple[int, str]]:
    """First codes of ranges with one form, in order; codes between operators of one form are of it too, unless
    more than twenty are free."""
    found: list[tuple[int, str]] = []
    last = 0
    for op in sorted((registry.get(n) for n in registry.names()), key=lambda op: op.opcode):
        name = op.form.name if op.form.number else "0"
        gap = op.opcode - last > 20
        if not found or gap or found[-1][1] != name:
            if op.opcode > last + 1 and (gap or found[-1][1] != name):
                found.append((last + 1, "0"))
            found.append((op.opcode, name))
        last = op.opcode
    return [*found, (last + 1, "0")]


def _branches(ranges: list[tuple[int, str]], depth: int) -> list[str]:
    """Statements that find the last range that starts at or below the opcode."""
    pad = PAD * depth
    if len(ranges) == 1:
        return [f"{pad}return {ranges[0][1]}\n"]
    half = len(ranges) // 2
    return [
        f"{pad}if opcode < {ranges[half][0]}:\n",
        *_branches(ranges[:half], depth + 1),
        *_branches(ranges[half:], depth),
    ]


FILES = {"numbers.vy": numbers.text, "protocol.vy": protocol, "forms.vy": forms}

if __name__ == "__main__":
    for file, text in FILES.items():
        (CONTRACTS / "generated" / file).write_text(text())
