// SHA-256 and Merkle trees against a reference as short as FIPS 180-4 and docs/trace-format.md
// allow.
#include <algorithm>
#include <array>
#include <cstring>

#include "calling.hpp"
#include "check.hpp"
#include "constants.hpp"
#include "hash/round_constants.hpp"

namespace {
using namespace ree;
using namespace ree::test;
using Bytes = std::vector<uint8_t>;
using Digest = std::array<uint8_t, 32>;

uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

Digest sha256(Bytes message) {
  const uint64_t bits = 8 * message.size();
  message.push_back(0x80);
  while (message.size() % 64 != 56) message.push_back(0);
  for (int i = 7; i >= 0; --i) message.push_back(static_cast<uint8_t>(bits >> (8 * i)));
  uint32_t h[8];
  std::memcpy(h, sha::kInit, sizeof h);
  for (size_t at = 0; at < message.size(); at += 64) {
    uint32_t w[64], v[8];
    for (size_t i = 0; i < 16; ++i) {
      w[i] = 0;
      for (size_t j = 0; j < 4; ++j) w[i] = w[i] << 8 | message[at + 4 * i + j];
    }
    for (int i = 16; i < 64; ++i) {
      const uint32_t a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) +
             (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
    }
    std::memcpy(v, h, sizeof v);
    for (int i = 0; i < 64; ++i) {
      const uint32_t e = v[4], a = v[0];
      const uint32_t t = v[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) +
                         ((e & v[5]) ^ (~e & v[6])) + sha::kRound[i] + w[i];
      const uint32_t u =
          (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
      for (int j = 7; j > 0; --j) v[j] = v[j - 1];
      v[4] += t;
      v[0] = t + u;
    }
    for (int i = 0; i < 8; ++i) h[i] += v[i];
  }
  Digest out;
  for (size_t i = 0; i < 32; ++i) out[i] = static_cast<uint8_t>(h[i / 4] >> (24 - 8 * (i % 4)));
  return out;
}

Digest tree(const Bytes& body) {
  std::vector<Digest> level;
  for (size_t at = 0; at < body.size(); at += kLeafBytes) {
    Bytes leaf(1 + kLeafBytes);
    std::copy_n(body.data() + at, std::min<size_t>(kLeafBytes, body.size() - at), leaf.data() + 1);
    level.push_back(sha256(leaf));
  }
  if (level.empty()) return {};
  while (level.size() > 1) {
    std::vector<Digest> above;
    if (level.size() % 2) level.push_back({});
    for (size_t i = 0; i < level.size(); i += 2) {
      Bytes node{1};
      node.insert(node.end(), level[i].begin(), level[i].end());
      node.insert(node.end(), level[i + 1].begin(), level[i + 1].end());
      above.push_back(sha256(node));
    }
    level = above;
  }
  return level[0];
}

Bytes noise(size_t n, uint64_t seed) {
  Random random{seed};
  Bytes x(n);
  for (uint8_t& b : x) b = static_cast<uint8_t>(random.next());
  return x;
}
}  // namespace

TEST(hash_reference_knows_fips_180) {
  const Digest abc = sha256({'a', 'b', 'c'}), empty = sha256({});
  const uint8_t want_abc[] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea};
  const uint8_t want_empty[] = {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14};
  CHECK(std::equal(want_abc, want_abc + 8, abc.begin()));
  CHECK(std::equal(want_empty, want_empty + 8, empty.begin()));
}

TEST(hash_trees_of_every_shape) {
  const size_t sizes[] = {0,    1,    511,  512,   513,   1024,  1025,      2560,         8191,
                          8192, 8193, 9000, 16000, 65536, 66000, 512 * 255, 512 * 257 + 5};
  for (size_t n : sizes) {
    const Bytes body = noise(n, n);  // exactly n bytes on the heap: a byte read beyond is found
    const Digest want = tree(body);
    for (const std::string& isa : instruction_sets())
      for (int threads : {1, 3}) {
        Pool pool(threads);
        Bytes root(32, 0xa5);
        call(pool, isa, "tree_hash", {static_cast<int64_t>(n)}, {body.data(), root.data()});
        CHECK(std::equal(want.begin(), want.end(), root.begin()));
      }
  }
}

TEST(hash_many_trees) {
  for (size_t count : {0, 1, 2, 17, 40}) {
    std::vector<Bytes> bodies;
    std::vector<const void*> buffers;
    std::vector<int64_t> params{static_cast<int64_t>(count)};
    std::vector<Digest> want;
    Random random{count};
    for (size_t i = 0; i < count; ++i) {
      bodies.push_back(noise(static_cast<size_t>(random.below(i % 5 == 4 ? 9000 : 1500)), i));
      params.push_back(static_cast<int64_t>(bodies.back().size()));
      want.push_back(tree(bodies.back()));
    }
    for (const Bytes& b : bodies) buffers.push_back(b.data());
    std::vector<Digest> roots(count);
    buffers.push_back(roots.data());
    for (const std::string& isa : instruction_sets()) {
      Pool pool(3);
      std::fill(roots.begin(), roots.end(), Digest{});
      call(pool, isa, "tree_hash_many", params, buffers);
      CHECK(roots == want);
    }
  }
}

TEST(hash_messages_around_the_padding) {
  for (size_t length : {0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 121, 128, 1000})
    for (size_t count : {1, 2, 9, 16, 37}) {
      const size_t stride = length + 3;
      const Bytes data = noise((count - 1) * stride + length, length);
      std::vector<Digest> want;
      for (size_t i = 0; i < count; ++i) {
        const uint8_t* at = data.data() + i * stride;
        want.push_back(sha256(Bytes(at, at + length)));
      }
      for (const std::string& isa : instruction_sets()) {
        Pool pool(2);
        std::vector<Digest> got(count);
        call(pool, isa, "sha256_many",
             {static_cast<int64_t>(count), static_cast<int64_t>(length),
              static_cast<int64_t>(stride)},
             {data.data(), got.data()});
        CHECK(got == want);
      }
    }
}
