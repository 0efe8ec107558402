// Hash kernels: Merkle roots of tensor bodies (docs/trace-format.md) and plain SHA-256.
#pragma once
#include <algorithm>
#include <vector>

#include "../ops/common.inl"
#include "compress.inl"
#include "instructions.hpp"
#include "streams.inl"

namespace ree::REE_ISA {
namespace sha {

inline constexpr int kFan = 16;         // nodes a piece of a large tree leaves behind: full vectors
inline constexpr int64_t kPiece = 256;  // leaves (128 KiB) a piece starts from
inline constexpr int kScalar = 2;       // up to here one message after the other is faster

// What hashes the messages at hand: the processor's instructions, vectors or scalar code.
inline void hash_some(const ShaInstructions& own, uint8_t tag, int blocks,
                      const uint8_t* const* src, uint8_t* const* dst, int n) {
  if (n <= own.up_to) {
    hash_tagged_streams(own.compress, tag, blocks, src, dst, n);
  } else if (n > kScalar) {
    hash_tagged(tag, blocks, src, dst, n);
  } else {
    // both sources of a parent precede or equal its place, so this order is safe too
    for (int i = 0; i < n; ++i) hash_tagged_one(tag, blocks, src[i], dst[i]);
  }
}

// Collects messages and hashes W at a time. A message may overwrite sources of its own or earlier
// messages, as sources are read before digests are written.
class Batch {
 public:
  Batch(uint8_t tag, int blocks) : tag_(tag), blocks_(blocks) {}
  void add(const uint8_t* src, uint8_t* dst) {
    src_[n_] = src;
    dst_[n_] = dst;
    if (++n_ == W) flush();
  }
  // a leaf of n < kLeafBytes bytes, zero-filled
  void add_partial(const uint8_t* src, int64_t n, uint8_t* dst) {
    std::memcpy(partial_[n_], src, static_cast<size_t>(n));
    std::memset(partial_[n_] + n, 0, static_cast<size_t>(kLeafBytes - n));
    add(partial_[n_], dst);
  }
  void flush() {
    hash_some(own_, tag_, blocks_, src_, dst_, n_);
    n_ = 0;
  }

 private:
  const ShaInstructions own_ = sha_instructions(kIsaName);
  uint8_t tag_;
  int blocks_, n_ = 0;
  const uint8_t* src_[W];
  uint8_t* dst_[W];
  uint8_t partial_[W][kLeafBytes];
};

// `count` consecutive leaves or nodes of one tree, reduced by `levels` levels to `dst`.
struct Piece {
  const uint8_t* data;  // leaves: tensor bytes; nodes: digests
  int64_t bytes;        // leaves only
  int64_t count;
  int levels;
  uint8_t* dst;
  uint8_t* slot;  // the digests being reduced
};

struct Tree {
  const uint8_t* data;
  int64_t bytes;
  uint8_t* out;
  int64_t count;  // leaves, then nodes of the level reached; 0 when done
};

// Pieces share vectors, so many small trees cost what one large tree does.
inline void reduce(Piece* first, Piece* last, bool leaves, uint8_t* scratch) {
  int depth = 0;
  for (Piece* p = first; p != last; ++p) {
    p->slot = scratch;
    scratch += (p->count + 1) / 2 * 2 * kDigestBytes;
    depth = std::max(depth, p->levels);
  }
  if (leaves) {
    Batch batch(0, kLeafBytes / 64);
    for (Piece* p = first; p != last; ++p)
      for (int64_t i = 0; i < p->count; ++i) {
        const int64_t rest = p->bytes - i * kLeafBytes;
        uint8_t* dst = p->slot + i * kDigestBytes;
        if (rest >= kLeafBytes)
          batch.add(p->data + i * kLeafBytes, dst);
        else
          batch.add_partial(p->data + i * kLeafBytes, rest, dst);
      }
    batch.flush();
  } else {
    for (Piece* p = first; p != last; ++p)
      std::memcpy(p->slot, p->data, static_cast<size_t>(p->count * kDigestBytes));
  }
  for (int level = 0; level < depth; ++level) {
    Batch batch(1, 1);
    for (Piece* p = first; p != last; ++p) {
      if (level >= p->levels) continue;
      if (p->count % 2) std::memset(p->slot + p->count * kDigestBytes, 0, kDigestBytes);  // absent
      p->count = (p->count + 1) / 2;
      for (int64_t i = 0; i < p->count; ++i)
        batch.add(p->slot + 2 * i * kDigestBytes, p->slot + i * kDigestBytes);
    }
    batch.flush();
  }
  for (Piece* p = first; p != last; ++p)
    std::memcpy(p->dst, p->slot, static_cast<size_t>(p->count * kDigestBytes));
}

// Roots of many trees: large ones lose a few levels per pass, small ones are finished in one.
inline void hash_trees(Pool& pool, std::vector<Tree>& trees) {
  int64_t total = 0;
  for (Tree& t : trees) total += t.count = ceil_div(t.bytes, kLeafBytes);
  int64_t limit = kPiece;  // smaller pieces when there is too little work for every thread
  while (limit > 2 * kFan && total < 2 * limit * pool.threads()) limit /= 2;
  int levels = 0;
  while (static_cast<int64_t>(kFan) << levels < limit) ++levels;

  int64_t first_layer = 0;
  for (const Tree& t : trees)
    if (t.count > limit)
      first_layer += ceil_div(t.count, static_cast<int64_t>(1) << levels) * kDigestBytes;
  uint8_t* const shared = static_cast<uint8_t*>(pool.shared(static_cast<size_t>(2 * first_layer)));
  uint8_t* const layers[2] = {shared, shared + first_layer};

  std::vector<Piece> pieces;
  std::vector<int64_t> items;  // bounds: item i is pieces [items[i], items[i + 1])
  for (int pass = 0;; ++pass) {
    pieces.clear();
    items.assign(1, 0);
    uint8_t* next = layers[pass % 2];
    int64_t filled = 0;
    const auto put = [&](const Piece& p) {
      if (filled + p.count > limit) {
        items.push_back(static_cast<int64_t>(pieces.size()));
        filled = 0;
      }
      filled += p.count;
      pieces.push_back(p);
    };
    for (Tree& t : trees) {
      if (t.count == 0) {
        if (pass == 0) std::memset(t.out, 0, kDigestBytes);
        continue;
      }
      const int64_t unit = pass == 0 ? kLeafBytes : kDigestBytes;
      if (t.count <= limit) {
        int depth = 0;
        while (static_cast<int64_t>(1) << depth < t.count) ++depth;
        put({t.data, t.bytes, t.count, depth, t.out, nullptr});
        t.count = 0;
        continue;
      }
      uint8_t* const layer = next;
      for (int64_t i = 0; i < t.count; i += limit) {
        put({t.data + i * unit, t.bytes - i * unit, std::min(limit, t.count - i), levels, next,
             nullptr});
        next += kFan * kDigestBytes;
      }
      t.data = layer;
      t.count = ceil_div(t.count, static_cast<int64_t>(1) << levels);
      next = layer + t.count * kDigestBytes;
    }
    if (pieces.empty()) return;
    items.push_back(static_cast<int64_t>(pieces.size()));
    pool.parallel_for(static_cast<int64_t>(items.size()) - 1, [&](int64_t i, int thread) {
      reduce(pieces.data() + items[static_cast<size_t>(i)],
             pieces.data() + items[static_cast<size_t>(i) + 1], pass == 0,
             static_cast<uint8_t*>(
                 pool.scratch(thread, static_cast<size_t>(2 * limit * kDigestBytes))));
    });
  }
}

}  // namespace sha

// Root of one tensor body.
static void tree_hash(Pool& pool, const abi::TreeHashArgs& p) {
  std::vector<sha::Tree> trees{
      {static_cast<const uint8_t*>(p.data), p.bytes, static_cast<uint8_t*>(p.root), 0}};
  sha::hash_trees(pool, trees);
}

// Roots of many bodies, one after the other.
static void tree_hash_many(Pool& pool, const abi::TreeHashManyArgs& p) {
  std::vector<sha::Tree> trees;
  for (int64_t i = 0; i < p.count; ++i)
    trees.push_back({static_cast<const uint8_t*>(p.data[i]), p.bytes[i],
                     static_cast<uint8_t*>(p.roots) + i * kDigestBytes, 0});
  sha::hash_trees(pool, trees);
}

// Plain SHA-256 of messages of `bytes`, one every `stride`.
static void sha256_many(Pool& pool, const abi::Sha256ManyArgs& p) {
  const int64_t length = p.bytes;
  const ShaInstructions own = sha_instructions(kIsaName);
  pool.parallel_for(ceil_div(p.count, W), [&](int64_t item, int) {
    const uint8_t* src[W];
    uint8_t* dst[W];
    const int n = static_cast<int>(std::min<int64_t>(W, p.count - item * W));
    for (int i = 0; i < n; ++i) {
      src[i] = static_cast<const uint8_t*>(p.data) + (item * W + i) * p.stride;
      dst[i] = static_cast<uint8_t*>(p.digests) + (item * W + i) * kDigestBytes;
    }
    if (n <= own.up_to)
      sha::hash_plain_streams(own.compress, src, length, dst, n);
    else
      sha::hash_plain(src, length, dst, n);
  });
}

}  // namespace ree::REE_ISA
