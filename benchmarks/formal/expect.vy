# pragma version 0.4.3
"""
@title Expect
@notice What a property says of all inputs, as halmos looks for it: a failure is Panic(1). A plain assert is a condition
        on the inputs.
"""

CHEATS: constant(address) = 0x7109709ECfa91a80626fF3989D68f67F5b1DD12D


@internal
@pure
def holds(ok: bool):
    if not ok:
        raw_revert(x"4e487b710000000000000000000000000000000000000000000000000000000000000001")


@internal
def warp(now: uint256):
    """
    @notice The time of the block from here on.
    """
    raw_call(CHEATS, abi_encode(now, method_id=method_id("warp(uint256)")))
