"""Putting the contracts on a chain."""

from __future__ import annotations

from ree.compiler.instance import numeric_id
from ree.settlement.compile import compile_contract
from ree.settlement.node import Node


def deploy_referee(node: Node) -> str:
    """Address of a referee for this version's numeric id, with its parts."""
    elements = node.deploy(compile_contract("elements.vy"))
    decoder = node.deploy(compile_contract("operation_decoder.vy"))
    arithmetic = node.deploy(compile_contract("arithmetic.vy"))
    proofs = node.deploy(compile_contract("proofs.vy"), decoder, arithmetic)
    return node.deploy(compile_contract("referee.vy"), numeric_id(), elements, proofs)


def deploy_court(node: Node, referee: str, treasury: str) -> str:
    """Address of a Court for a referee; the protocol fee is credited to `treasury` for ever."""
    return node.deploy(compile_contract("court.vy"), referee, treasury)


def deploy_token(node: Node) -> str:
    """Address of a token that anyone may mint: for demonstrations."""
    return node.deploy(compile_contract("testing/token.vy"))
