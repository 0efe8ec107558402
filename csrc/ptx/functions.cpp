// What translated code calls: memory, copies, matrices, and where lanes go apart. Addresses lie in
// Warp::address, values in Warp::data as [operand][lane].
#include <algorithm>
#include <cstring>

#include "ptx/machine.hpp"

namespace ree::ptx {
namespace {

template <class Fn>
inline void each_lane(uint32_t mask, Fn&& fn) {
  for (; mask; mask &= mask - 1) fn(__builtin_ctz(mask));
}

uint8_t* bytes_of(Warp* w) { return reinterpret_cast<uint8_t*>(w->data); }
uint32_t* words_of(Warp* w) { return reinterpret_cast<uint32_t*>(w->data); }

// loads and stores of COUNT elements of SIZE bytes

template <int SIZE, int COUNT>
void load_global(Warp* w, uint32_t mask, uint32_t line) {
  uint8_t* out = bytes_of(w);
  each_lane(mask, [&](int lane) {
    const uint64_t at = w->address[lane];
    const bool ok = w->machine->global_ok(*w, at, SIZE * COUNT, lane, line);
    for (int c = 0; c < COUNT; ++c) {
      uint8_t* to = out + (c * kLanes + lane) * SIZE;
      if (ok) {
        std::memcpy(to, reinterpret_cast<const uint8_t*>(at) + c * SIZE, SIZE);
      } else {
        std::memset(to, kPoison, SIZE);
      }
    }
  });
}

template <int SIZE, int COUNT>
void store_global(Warp* w, uint32_t mask, uint32_t line) {
  const uint8_t* from = bytes_of(w);
  each_lane(mask, [&](int lane) {
    const uint64_t at = w->address[lane];
    if (!w->machine->global_ok(*w, at, SIZE * COUNT, lane, line)) return;
    for (int c = 0; c < COUNT; ++c) {
      std::memcpy(reinterpret_cast<uint8_t*>(at) + c * SIZE, from + (c * kLanes + lane) * SIZE,
                  SIZE);
    }
  });
}

template <int SIZE, int COUNT>
void load_shared(Warp* w, uint32_t mask, uint32_t line) {
  uint8_t* out = bytes_of(w);
  Machine& m = *w->machine;
  each_lane(mask, [&](int lane) {
    const uint64_t at = w->address[lane];
    const bool ok = m.shared_ok(*w, at, SIZE * COUNT, lane, line);
    if (ok) m.note_read(*w, static_cast<uint32_t>(at), SIZE * COUNT, lane, line);
    for (int c = 0; c < COUNT; ++c) {
      uint8_t* to = out + (c * kLanes + lane) * SIZE;
      if (ok) {
        std::memcpy(to, m.at_shared(at) + c * SIZE, SIZE);
      } else {
        std::memset(to, kPoison, SIZE);
      }
    }
  });
}

template <int SIZE, int COUNT>
void store_shared(Warp* w, uint32_t mask, uint32_t line) {
  const uint8_t* from = bytes_of(w);
  Machine& m = *w->machine;
  each_lane(mask, [&](int lane) {
    const uint64_t at = w->address[lane];
    if (!m.shared_ok(*w, at, SIZE * COUNT, lane, line)) return;
    uint8_t bytes[SIZE * COUNT];
    for (int c = 0; c < COUNT; ++c) {
      std::memcpy(bytes + c * SIZE, from + (c * kLanes + lane) * SIZE, SIZE);
    }
    m.write_shared(*w, at, bytes, SIZE * COUNT, lane, line);
  });
}

// Copies of `size` bytes from global (address) to shared memory (the first words of data); of the
// given bytes (the second words), the rest are zeros.
void copy_async(Warp* w, uint32_t mask, uint32_t size, uint32_t line) {
  Machine& m = *w->machine;
  each_lane(mask, [&](int lane) {
    const uint32_t to = words_of(w)[lane], given = std::min(words_of(w)[kLanes + lane], size);
    if (!m.shared_ok(*w, to, size, lane, line)) return;
    // where nothing is read the source may be anywhere, but must be aligned
    if (given && !m.global_ok(*w, w->address[lane], 1, lane, line)) return;
    if (given && !m.global_ok(*w, w->address[lane] + given - 1, 1, lane, line)) return;
    if (w->address[lane] & (size - 1))
      return m.fault(*w, Fault::kAlignment, line, w->address[lane], lane);
    const Copy c{to, size, given, line, w->address[lane]};
    if (m.launch->late) {
      w->copies.back().push_back(c);
    } else {
      land(*w, c);
    }
  });
}

void copy_commit(Warp* w, uint32_t mask, uint32_t line) {
  if (mask != w->live) return w->machine->fault(*w, Fault::kDivergentSync, line, 0, 0);
  w->copies.emplace_back();
}

void copy_wait(Warp* w, uint32_t mask, uint32_t groups, uint32_t line) {
  if (mask != w->live) return w->machine->fault(*w, Fault::kDivergentSync, line, 0, 0);
  arrive(*w, groups);
}

void copy_wait_all(Warp* w, uint32_t mask, uint32_t line) {
  if (mask != w->live) return w->machine->fault(*w, Fault::kDivergentSync, line, 0, 0);
  w->copies.emplace_back();
  arrive(*w, 0);
}

// 8 x 8 matrices of 16 bits: row r of matrix i lies where lane 8 i + r says; lane l holds elements
// 2 (l % 4) and the next of row l / 4, or of column l / 4 where it is transposed.

void load_matrix(Warp* w, uint32_t mask, uint32_t count, uint32_t transposed, uint32_t line) {
  Machine& m = *w->machine;
  if (mask != ~0u) return m.fault(*w, Fault::kDivergentSync, line, 0, 0);
  for (uint32_t i = 0; i < count; ++i) {
    uint16_t x[8][8];
    for (uint32_t r = 0; r < 8; ++r) {
      const int lane = static_cast<int>(8 * i + r);
      const uint64_t at = w->address[lane];
      if (!m.shared_ok(*w, at, 16, lane, line)) return;
      m.note_read(*w, static_cast<uint32_t>(at), 16, lane, line);
      std::memcpy(x[r], m.at_shared(at), 16);
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      const int a = lane / 4, b = 2 * (lane % 4);
      const uint32_t low = transposed ? x[b][a] : x[a][b],
                     high = transposed ? x[b + 1][a] : x[a][b + 1];
      words_of(w)[i * kLanes + static_cast<uint32_t>(lane)] = low | high << 16;
    }
  }
}

void store_matrix(Warp* w, uint32_t mask, uint32_t count, uint32_t transposed, uint32_t line) {
  Machine& m = *w->machine;
  if (mask != ~0u) return m.fault(*w, Fault::kDivergentSync, line, 0, 0);
  for (uint32_t i = 0; i < count; ++i) {
    uint16_t x[8][8];
    for (int lane = 0; lane < kLanes; ++lane) {
      const uint32_t v = words_of(w)[i * kLanes + static_cast<uint32_t>(lane)];
      const int a = lane / 4, b = 2 * (lane % 4);
      (transposed ? x[b][a] : x[a][b]) = static_cast<uint16_t>(v);
      (transposed ? x[b + 1][a] : x[a][b + 1]) = static_cast<uint16_t>(v >> 16);
    }
    for (uint32_t r = 0; r < 8; ++r) {
      const int lane = static_cast<int>(8 * i + r);
      if (!m.shared_ok(*w, w->address[lane], 16, lane, line)) return;
      m.write_shared(*w, w->address[lane], x[r], 16, lane, line);
    }
  }
}

// D = A B + C of bytes, A [16][4 kc], B [4 kc][8] in words of 4 bytes along k, kc = 4 or 8 words.
// Words of data: A, B, C; D replaces the first four. With `saturate` a sum that does not fit is the
// nearest that does.
void multiply_bytes(Warp* w, uint32_t mask, uint32_t k, uint32_t saturate, uint32_t line) {
  if (mask != ~0u) return w->machine->fault(*w, Fault::kDivergentSync, line, 0, 0);
  const uint32_t halves = k / 16;  // halves of 16 k: two registers of A, one of B
  const uint32_t* a = words_of(w);
  const uint32_t* b = a + 2 * halves * kLanes;
  const uint32_t* c = b + halves * kLanes;
  uint32_t d[4][kLanes];
  const auto byte = [](uint32_t v, int i) {
    return static_cast<int64_t>(static_cast<int8_t>(v >> (8 * i)));
  };
  for (int row = 0; row < 16; ++row) {
    for (int col = 0; col < 8; ++col) {
      const int lane = row % 8 * 4 + col / 2, reg = row / 8 * 2 + col % 2;
      int64_t sum = static_cast<int32_t>(c[reg * kLanes + lane]);
      for (uint32_t h = 0; h < halves; ++h) {
        for (int t = 0; t < 4; ++t) {
          const uint32_t x = a[(h * 2 + static_cast<uint32_t>(row / 8)) * kLanes +
                               static_cast<uint32_t>(row % 8 * 4 + t)];
          const uint32_t y = b[h * kLanes + static_cast<uint32_t>(col * 4 + t)];
          for (int i = 0; i < 4; ++i) sum += byte(x, i) * byte(y, i);
        }
      }
      if (saturate) sum = std::clamp<int64_t>(sum, INT32_MIN, INT32_MAX);
      d[reg][lane] = static_cast<uint32_t>(sum);
    }
  }
  std::memcpy(w->data, d, sizeof d);
}

// Where lanes go apart, each notes the block it goes to; those of the lowest block go on. Returns
// that block.
uint32_t schedule(Warp* w) {
  uint32_t lowest = ~0u;
  each_lane(w->live, [&](int lane) { lowest = std::min(lowest, w->at[lane]); });
  w->mask = 0;
  each_lane(w->live, [&](int lane) { w->mask |= w->at[lane] == lowest ? 1u << lane : 0; });
  return lowest;
}

// The lanes at work go to `yes` where `taken`, else to `no`. Returns the block to go on with.
uint32_t branch(Warp* w, uint32_t taken, uint32_t yes, uint32_t no) {
  each_lane(w->mask, [&](int lane) { w->at[lane] = taken >> lane & 1 ? yes : no; });
  return schedule(w);
}

// The lanes `mask` leave the kernel, the others at work go to `next`. Whether any is left.
uint32_t leave(Warp* w, uint32_t mask, uint32_t next) {
  each_lane(w->mask & ~mask, [&](int lane) { w->at[lane] = next; });
  w->live &= ~mask;
  return w->live != 0;
}

// Whether the kernel may jump back once more: not after a fault, and not for ever.
uint32_t may_go_on(Warp* w, uint32_t line) {
  if (w->fault) return 0;
  if (--w->budget) return 1;
  w->machine->fault(*w, Fault::kBudget, line, 0, 0);
  return 0;
}

// All lanes of `wanted` must be here, and those here must be in it.
void must_be_together(Warp* w, uint32_t mask, uint32_t wanted, uint32_t line) {
  if ((mask & ~wanted) || (wanted & w->live & ~mask)) {
    w->machine->fault(*w, Fault::kDivergentSync, line, 0, __builtin_ctz(mask | 1u << 31));
  }
}

uint32_t may_wait(Warp* w, uint32_t mask, uint32_t line) {
  if (mask == w->live) return 1;
  w->machine->fault(*w, Fault::kDivergentBarrier, line, 0, 0);
  return 0;
}

// shfl: words of data are the value, the lane or distance, and the segment; the value of the lane
// asked for replaces the first, and whether it lies in the segment the second. Modes: up, down,
// bfly, idx.
void shuffle(Warp* w, uint32_t mask, uint32_t mode, uint32_t line) {
  uint32_t value[kLanes], inside[kLanes];
  const uint32_t* data = words_of(w);
  each_lane(mask, [&](int lane) {
    const int b = static_cast<int>(data[kLanes + lane] & 31);
    const uint32_t c = data[2 * kLanes + lane], segment = c >> 8 & 31;
    const int most =
        static_cast<int>((static_cast<uint32_t>(lane) & segment) | (c & 31 & ~segment));
    int j = lane;
    bool ok = false;
    if (mode == 0) {
      j = lane - b, ok = j >= most;
    } else if (mode == 1) {
      j = lane + b, ok = j <= most;
    } else if (mode == 2) {
      j = lane ^ b, ok = j <= most;
    } else {
      j = static_cast<int>((static_cast<uint32_t>(lane) & segment) |
                           (static_cast<uint32_t>(b) & ~segment));
      ok = j <= most;
    }
    if (!ok) j = lane;
    if (!(mask >> j & 1)) w->machine->fault(*w, Fault::kLaneWithoutValue, line, 0, lane);
    value[lane] = data[j];
    inside[lane] = ok;
  });
  each_lane(mask, [&](int lane) {
    words_of(w)[lane] = value[lane];
    words_of(w)[kLanes + lane] = inside[lane];
  });
}

template <class Fn>
uint64_t address_of(Fn* f) {
  return reinterpret_cast<uint64_t>(f);
}

template <int SIZE, int COUNT>
void add_accesses(std::vector<std::pair<std::string, uint64_t>>& out) {
  const std::string shape = "_" + std::to_string(SIZE) + "_" + std::to_string(COUNT);
  out.emplace_back("ptx_load_global" + shape, address_of(load_global<SIZE, COUNT>));
  out.emplace_back("ptx_store_global" + shape, address_of(store_global<SIZE, COUNT>));
  out.emplace_back("ptx_load_shared" + shape, address_of(load_shared<SIZE, COUNT>));
  out.emplace_back("ptx_store_shared" + shape, address_of(store_shared<SIZE, COUNT>));
}

template <int COUNT>
void add_widths(std::vector<std::pair<std::string, uint64_t>>& out) {
  add_accesses<1, COUNT>(out);
  add_accesses<2, COUNT>(out);
  add_accesses<4, COUNT>(out);
  if constexpr (COUNT <= 2) add_accesses<8, COUNT>(out);
}

}  // namespace

std::vector<std::pair<std::string, uint64_t>> functions() {
  std::vector<std::pair<std::string, uint64_t>> out = {
      {"ptx_copy_async", address_of(copy_async)},
      {"ptx_copy_commit", address_of(copy_commit)},
      {"ptx_copy_wait", address_of(copy_wait)},
      {"ptx_copy_wait_all", address_of(copy_wait_all)},
      {"ptx_load_matrix", address_of(load_matrix)},
      {"ptx_store_matrix", address_of(store_matrix)},
      {"ptx_multiply_bytes", address_of(multiply_bytes)},
      {"ptx_shuffle", address_of(shuffle)},
      {"ptx_schedule", address_of(schedule)},
      {"ptx_branch", address_of(branch)},
      {"ptx_leave", address_of(leave)},
      {"ptx_may_go_on", address_of(may_go_on)},
      {"ptx_must_be_together", address_of(must_be_together)},
      {"ptx_may_wait", address_of(may_wait)},
  };
  add_widths<1>(out);
  add_widths<2>(out);
  add_widths<4>(out);
  return out;
}

}  // namespace ree::ptx
