# pragma version 0.4.3
"""
@title OddToken
@notice Tests only: an ERC-20 without approvals that misbehaves as it is told to. It returns nothing, may keep a
        fee, may take more than it says, may change all balances, and may call back into whom it pays.
"""

shares: HashMap[address, uint256]
percent: uint256  # what a balance is of its shares
fee: uint256  # percent of a transfer, kept from the receiver
extra: uint256  # taken from the sender beside the amount
target: address  # called in every transfer
payload: Bytes[1024]
blocked: HashMap[address, bool]


@deploy
def __init__():
    self.percent = 100


@external
def mint(to: address, amount: uint256):
    self.shares[to] += amount


@external
def approve(spender: address, amount: uint256):
    pass


@external
def set_fee(fee: uint256):
    self.fee = fee


@external
def set_extra(extra: uint256):
    self.extra = extra


@external
def set_percent(percent: uint256):
    self.percent = percent


@external
def set_blocked(account: address, blocked: bool):
    self.blocked[account] = blocked


@external
def set_call(target: address, payload: Bytes[1024]):
    self.target = target
    self.payload = payload


@external
@view
def balanceOf(account: address) -> uint256:
    return self.shares[account] * self.percent // 100


@external
def transfer(to: address, amount: uint256):
    self._move(msg.sender, to, amount)


@external
def transferFrom(owner: address, to: address, amount: uint256):
    self._move(owner, to, amount)


@internal
def _move(owner: address, to: address, amount: uint256):
    assert not self.blocked[to], "token: blocked"
    self.shares[owner] -= (amount + self.extra) * 100 // self.percent
    self.shares[to] += (amount - amount * self.fee // 100) * 100 // self.percent
    if self.target != empty(address):
        raw_call(self.target, self.payload)
