// SHA-256 with the SHA2 instructions of ARMv8.
#include <arm_neon.h>

#include "instructions.hpp"
#define REE_SHA sha_arm

namespace {
using Words = uint32x4_t;
struct State {
  uint32x4_t abcd, efgh;
};

inline Words load_block_words(const uint8_t* p) {
  return vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p)));
}
inline Words load_constants(const uint32_t* k) { return vld1q_u32(k); }
inline Words plus(Words a, Words b) { return vaddq_u32(a, b); }
inline Words next(Words a, Words b, Words c, Words d) {
  return vsha256su1q_u32(vsha256su0q_u32(a, b), c, d);
}

inline State enter(const uint32_t* s) { return {vld1q_u32(s), vld1q_u32(s + 4)}; }
inline State plus(State a, State b) { return {plus(a.abcd, b.abcd), plus(a.efgh, b.efgh)}; }
inline void leave(State s, uint32_t* to) {
  vst1q_u32(to, s.abcd);
  vst1q_u32(to + 4, s.efgh);
}
inline void four_rounds(State& s, Words x) {
  const uint32x4_t abcd = s.abcd;
  s.abcd = vsha256hq_u32(abcd, s.efgh, x);
  s.efgh = vsha256h2q_u32(s.efgh, abcd, x);
}
}  // namespace

#include "instructions.inl"
