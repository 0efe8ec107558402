# pragma version 0.4.3
"""
@title Fp32
@notice The operations of the scalar language on bit patterns: what a court executes to decide a dispute.
@dev A float32 is its 32 bits, an int64 its 64, a bool 0 or 1, each in a uint256. Rounding is to nearest
     even, subnormals are kept, every computed NaN is 0x7fc00000. Link it as a module; nothing here reads
     or writes state. Operands must fit their types; then all values stay far below 2^256, hence the
     unchecked arithmetic. kernels/scalar/softfloat.py has the same meaning.
"""

# a hexadecimal literal of four bytes would be a bytes4, hence the powers of two
BIT: constant(uint256) = 1
ZERO: constant(uint256) = 0
HIDDEN: constant(uint256) = 2**23
SIGN: constant(uint256) = 2**31
MAGNITUDE: constant(uint256) = 2**31 - 1
INF: constant(uint256) = 255 * 2**23
NAN: constant(uint256) = 511 * 2**22
ONE: constant(uint256) = 127 * 2**23
HALF: constant(uint256) = 126 * 2**23

# three bits an entry: floor(log2(v)) of v = 1 .. 63; (2^(3n) - 1) / 7 is n entries of 1
LOG2: constant(uint256) = (
    1 * 2**6 * (2**6 - 1) // 7
    + 2 * 2**12 * (2**12 - 1) // 7
    + 3 * 2**24 * (2**24 - 1) // 7
    + 4 * 2**48 * (2**48 - 1) // 7
    + 5 * 2**96 * (2**96 - 1) // 7
)


# rounding


@internal
@pure
def rounded(sign: uint256, x: uint256, e: uint256) -> uint256:
    """
    @notice x * 2^(e - 300), 0 < x < 2^96, rounded once; a lowest bit may stand for all bits below it
            if x has at least 26 bits.
    @param sign 0 or 2^31
    """
    # k = floor(log2(x)), by halving 96 bits to 6 and a table
    k: uint256 = unsafe_mul(convert(x > 2**48 - 1, uint256), 48)
    k = unsafe_add(k, unsafe_mul(convert(x >> k > 2**24 - 1, uint256), 24))
    k = unsafe_add(k, unsafe_mul(convert(x >> k > 2**12 - 1, uint256), 12))
    k = unsafe_add(k, unsafe_mul(convert(x >> k > 2**6 - 1, uint256), 6))
    k = unsafe_add(k, (LOG2 >> unsafe_mul(x >> k, 3)) & 7)
    # y = x * 2^25 is cut by at least two bits: to 24, or at 2^-149 where that is higher
    cut: uint256 = unsafe_add(k, 2)
    field: uint256 = unsafe_add(k, e)  # of the exponent, less one, plus 174
    if field > 174:
        field = unsafe_sub(field, 174) << 23
    else:
        cut = unsafe_sub(176, e)
        field = 0
    y: uint256 = x << 25
    # half less one, plus the last bit kept: a tie goes up only from odd. A carry out of the 24 bits
    # moves into the exponent, as it should
    y = unsafe_add(y, unsafe_add(unsafe_sub((BIT << cut) >> 1, 1), (y >> cut) & 1))
    y = unsafe_add(field, y >> cut)
    if y > INF:
        y = INF
    return sign | y


# float32


@internal
@pure
def is_nan(a: uint256) -> bool:
    return a & MAGNITUDE > INF


@internal
@pure
def canonical(a: uint256) -> uint256:
    if a & MAGNITUDE > INF:
        return NAN
    return a


@internal
@pure
def fma(a: uint256, b: uint256, c: uint256) -> uint256:
    """
    @notice a * b + c, rounded once.
    """
    sign: uint256 = (a ^ b) & SIGN
    na: uint256 = a & MAGNITUDE
    nb: uint256 = b & MAGNITUDE
    nc: uint256 = c & MAGNITUDE
    if max(max(na, nb), nc) >= INF:
        return self._fma_special(sign, na, nb, nc, c)
    # |x| = n * 2^(e - 150)
    e: uint256 = max(na >> 23, 1)
    na = unsafe_sub(na, unsafe_sub(e, 1) << 23)
    f: uint256 = max(nb >> 23, 1)
    nb = unsafe_sub(nb, unsafe_sub(f, 1) << 23)
    na = unsafe_mul(na, nb)
    if na == 0:
        if nc == 0:
            return sign & c
        return c
    if nc == 0:
        return self.rounded(sign, na, unsafe_add(e, f))
    # the product is na * 2^(e - 300) from here on, and c is nc * 2^(f - 300)
    e = unsafe_add(e, f)
    f = max(nc >> 23, 1)
    nc = unsafe_sub(nc, unsafe_sub(f, 1) << 23)
    f = unsafe_add(f, 150)
    # to one exponent
    if e > f:
        f = unsafe_sub(e, f)
        if f > 47:  # c can only break a tie of the product
            f = 47
            nc = 1  # the sticky bit
        na = na << f
        e = unsafe_sub(e, f)
    else:
        f = unsafe_sub(f, e)
        if f > 71:  # the product is below a quarter of c's last place
            return c
        nc = nc << f
    if sign == c & SIGN:
        return self.rounded(sign, unsafe_add(na, nc), e)
    if na > nc:
        return self.rounded(sign, unsafe_sub(na, nc), e)
    if na == nc:
        return 0
    return self.rounded(c & SIGN, unsafe_sub(nc, na), e)


@internal
@pure
def _fma_special(sign: uint256, a: uint256, b: uint256, c: uint256, addend: uint256) -> uint256:
    """
    @notice fma where a magnitude a, b or c is infinite or NaN; `sign` is the product's.
    """
    if max(max(a, b), c) > INF:
        return NAN
    if max(a, b) != INF:
        return addend
    if min(a, b) == 0 or (c == INF and addend & SIGN != sign):
        return NAN
    return sign | INF


@internal
@pure
def add(a: uint256, b: uint256) -> uint256:
    high: uint256 = a
    low: uint256 = b
    if a & MAGNITUDE < b & MAGNITUDE:
        high = b
        low = a
    n: uint256 = high & MAGNITUDE
    m: uint256 = low & MAGNITUDE
    if n >= INF:
        if n > INF or (m == INF and a != b):
            return NAN
        return high
    e: uint256 = max(n >> 23, 1)
    n = unsafe_sub(n, unsafe_sub(e, 1) << 23)
    lag: uint256 = max(m >> 23, 1)
    m = unsafe_sub(m, unsafe_sub(lag, 1) << 23)
    lag = unsafe_sub(e, lag)
    if lag > 26:  # the smaller is below a quarter of the larger's last place
        return high
    n = n << lag
    e = unsafe_sub(unsafe_add(e, 150), lag)
    if (a ^ b) & SIGN == 0:
        n = unsafe_add(n, m)
        if n == 0:
            return a
    else:
        n = unsafe_sub(n, m)
        if n == 0:
            return 0
    return self.rounded(high & SIGN, n, e)


@internal
@pure
def sub(a: uint256, b: uint256) -> uint256:
    return self.add(a, b ^ SIGN)


@internal
@pure
def mul(a: uint256, b: uint256) -> uint256:
    sign: uint256 = (a ^ b) & SIGN
    n: uint256 = a & MAGNITUDE
    m: uint256 = b & MAGNITUDE
    if max(n, m) >= INF:
        if max(n, m) > INF or min(n, m) == 0:
            return NAN
        return sign | INF
    e: uint256 = max(n >> 23, 1)
    n = unsafe_sub(n, unsafe_sub(e, 1) << 23)
    f: uint256 = max(m >> 23, 1)
    n = unsafe_mul(n, unsafe_sub(m, unsafe_sub(f, 1) << 23))
    if n == 0:
        return sign
    return self.rounded(sign, n, unsafe_add(e, f))


@internal
@pure
def div(a: uint256, b: uint256) -> uint256:
    sign: uint256 = (a ^ b) & SIGN
    n: uint256 = a & MAGNITUDE
    m: uint256 = b & MAGNITUDE
    if max(n, m) >= INF:
        if max(n, m) > INF or n == m:
            return NAN
        if n == INF:
            return sign | INF
        return sign
    if m == 0:
        if n == 0:
            return NAN
        return sign | INF
    if n == 0:
        return sign
    e: uint256 = max(n >> 23, 1)
    n = unsafe_sub(n, unsafe_sub(e, 1) << 23) << 64
    f: uint256 = max(m >> 23, 1)
    m = unsafe_sub(m, unsafe_sub(f, 1) << 23)
    quotient: uint256 = unsafe_div(n, m)
    quotient |= convert(unsafe_mul(quotient, m) < n, uint256)  # the sticky bit
    return self.rounded(sign, quotient, unsafe_sub(unsafe_add(e, 236), f))


@internal
@pure
def sqrt(a: uint256) -> uint256:
    if a & MAGNITUDE == 0:
        return a
    if a >= INF:  # and negative numbers
        if a == INF:
            return INF
        return NAN
    e: uint256 = max(a >> 23, 1)
    n: uint256 = unsafe_sub(a, unsafe_sub(e, 1) << 23)
    # the exponent e - 150 made even
    n = n << unsafe_add(64, e & 1)
    root: uint256 = isqrt(n)
    root |= convert(unsafe_mul(root, root) < n, uint256)  # the sticky bit
    return self.rounded(0, root, unsafe_add(e >> 1, 193))


@internal
@pure
def neg(a: uint256) -> uint256:
    return self.canonical(a ^ SIGN)


@internal
@pure
def absolute(a: uint256) -> uint256:
    return self.canonical(a & MAGNITUDE)


@internal
@pure
def rint(a: uint256) -> uint256:
    """
    @notice To an integral value, half to even; zero keeps its sign.
    """
    n: uint256 = a & MAGNITUDE
    if n >= 150 * HIDDEN:  # 2^23: integral already
        return self.canonical(a)
    if n <= HALF:
        return a & SIGN
    if n < ONE:
        return (a & SIGN) | ONE
    # in place, a carry moving into the exponent; at 1 the last bit is the exponent's, which is odd there
    cut: uint256 = unsafe_sub(150, n >> 23)
    n = unsafe_add(n, unsafe_add(unsafe_sub((BIT << cut) >> 1, 1), (n >> cut) & 1))
    return (a & SIGN) | ((n >> cut) << cut)


# comparisons


@internal
@pure
def _key(a: uint256) -> uint256:
    """
    @notice Orders like the number, zeros alike; a is not NaN.
    """
    if a < SIGN:
        return a | SIGN
    return unsafe_sub(2**32, a)


@internal
@pure
def unordered(a: uint256, b: uint256) -> bool:
    return max(a & MAGNITUDE, b & MAGNITUDE) > INF


@internal
@pure
def less(a: uint256, b: uint256) -> bool:
    return not self.unordered(a, b) and self._key(a) < self._key(b)


@internal
@pure
def less_equal(a: uint256, b: uint256) -> bool:
    return not self.unordered(a, b) and self._key(a) <= self._key(b)


@internal
@pure
def equal(a: uint256, b: uint256) -> bool:
    return not self.unordered(a, b) and self._key(a) == self._key(b)


@internal
@pure
def minimum(a: uint256, b: uint256) -> uint256:
    """
    @notice NaN if either is; -0 < +0.
    """
    if self.unordered(a, b):
        return NAN
    key: uint256 = self._key(a)
    other: uint256 = self._key(b)
    if key == other:
        return a | b  # equal bits, or zeros
    if key < other:
        return a
    return b


@internal
@pure
def maximum(a: uint256, b: uint256) -> uint256:
    """
    @notice NaN if either is; -0 < +0.
    """
    if self.unordered(a, b):
        return NAN
    key: uint256 = self._key(a)
    other: uint256 = self._key(b)
    if key == other:
        return a & b  # equal bits, or zeros
    if key < other:
        return b
    return a


@internal
@pure
def total_order(a: uint256, b: uint256) -> bool:
    """
    @notice a < b in the order of sorts: NaN is greatest, the zeros are equal.
    """
    if a & MAGNITUDE > INF:
        return False
    return b & MAGNITUDE > INF or self._key(a) < self._key(b)


# conversions


@internal
@pure
def from_integer(sign: uint256, n: uint256) -> uint256:
    """
    @notice The integer n < 2^64 with this sign (0 or 2^31), rounded; +0 if n is 0.
    """
    if n == 0:
        return 0
    return self.rounded(sign, n, 300)


@internal
@pure
def to_integer(a: uint256, width: uint256) -> uint256:
    """
    @notice Toward zero, saturating, NaN to 0: two's complement of `width` bits, 32 or 64.
    """
    n: uint256 = a & MAGNITUDE
    if n > INF:
        return 0
    e: uint256 = max(n >> 23, 1)
    n = unsafe_sub(n, unsafe_sub(e, 1) << 23)
    if e > 150:
        n = n << unsafe_sub(e, 150)
    else:
        n = n >> unsafe_sub(150, e)
    limit: uint256 = (BIT << width) >> 1
    if a < SIGN:
        return min(n, unsafe_sub(limit, 1))
    return unsafe_sub(ZERO, min(n, limit)) & unsafe_sub(BIT << width, 1)
