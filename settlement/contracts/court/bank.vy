# pragma version 0.4.3
"""
@title Bank
@notice Credits of accounts by ERC-20, and what is held for jobs. Tokens move in `deposit` and `withdraw` only;
        everything else moves credits. What comes in is measured as a difference of balances, so that a fee on
        transfers costs the one who deposits; a token that misbehaves harms those who use it and no one else.
@dev credits + held + burnt = balance, for every token that keeps balances.
"""

from ethereum.ercs import IERC20

event Deposited:
    token: indexed(address)
    account: indexed(address)
    amount: uint256


event Withdrawn:
    token: indexed(address)
    account: indexed(address)
    amount: uint256


credits: public(HashMap[address, HashMap[address, uint256]])  # token, account
held: public(HashMap[address, uint256])  # rewards and bonds of jobs
burnt: public(HashMap[address, uint256])  # nobody's, for ever


@external
@nonreentrant
def deposit(token: address, amount: uint256) -> uint256:
    """
    @notice Take tokens that were approved; the credit is what arrives.
    @param token An ERC-20 token
    @param amount Units to take
    @return Units that arrived
    """
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transferFrom(
        msg.sender, self, amount, default_return_value=True
    ), "bank: transfer"
    received: uint256 = staticcall IERC20(token).balanceOf(self) - before
    self.credits[token][msg.sender] += received
    log Deposited(token=token, account=msg.sender, amount=received)
    return received


@external
@nonreentrant
def withdraw(token: address, amount: uint256):
    """
    @notice Pay out one's own credit.
    @param token An ERC-20 token
    @param amount Units to pay out
    """
    assert self.credits[token][msg.sender] >= amount, "bank: credit"
    self.credits[token][msg.sender] -= amount
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transfer(
        msg.sender, amount, default_return_value=True
    ), "bank: transfer"
    # a token that takes more than it was told to would take it from others
    assert staticcall IERC20(token).balanceOf(self) + amount >= before, "bank: balance"
    log Withdrawn(token=token, account=msg.sender, amount=amount)


@internal
def _hold(token: address, account: address, amount: uint256):
    """
    @notice From an account's credit to what is held for jobs.
    """
    assert self.credits[token][account] >= amount, "bank: credit"
    self.credits[token][account] -= amount
    self.held[token] += amount


@internal
def _credit(token: address, account: address, amount: uint256):
    """
    @notice From what is held to an account's credit.
    """
    self.held[token] -= amount
    self.credits[token][account] += amount


@internal
def _burn(token: address, amount: uint256):
    """
    @notice From what is held to nobody.
    """
    self.held[token] -= amount
    self.burnt[token] += amount
