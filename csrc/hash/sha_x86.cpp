// SHA-256 with the SHA extensions of x86 (SHA-NI).
#include <immintrin.h>

#include "instructions.hpp"
#ifdef REE_SHA_EMULATED  // a test's own sha256rnds2, sha256msg1 and sha256msg2
#include REE_SHA_EMULATED
#endif
#define REE_SHA sha_x86

namespace {
using Words = __m128i;
struct State {
  __m128i abef, cdgh;  // a and c in the highest words
};

inline __m128i load(const void* p) { return _mm_loadu_si128((const __m128i*)p); }
inline Words load_block_words(const uint8_t* p) {
  return _mm_shuffle_epi8(load(p), _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
}
inline Words load_constants(const uint32_t* k) { return load(k); }
inline Words plus(Words a, Words b) { return _mm_add_epi32(a, b); }
inline Words next(Words a, Words b, Words c, Words d) {
  return _mm_sha256msg2_epu32(plus(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8(d, c, 4)), d);
}

inline State enter(const uint32_t* s) {
  const __m128i cdab = _mm_shuffle_epi32(load(s), 0xb1),
                efgh = _mm_shuffle_epi32(load(s + 4), 0x1b);
  return {_mm_alignr_epi8(cdab, efgh, 8), _mm_blend_epi16(efgh, cdab, 0xf0)};
}
inline State plus(State a, State b) { return {plus(a.abef, b.abef), plus(a.cdgh, b.cdgh)}; }
inline void leave(State s, uint32_t* to) {
  const __m128i feba = _mm_shuffle_epi32(s.abef, 0x1b), dchg = _mm_shuffle_epi32(s.cdgh, 0xb1);
  _mm_storeu_si128((__m128i*)to, _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128((__m128i*)(to + 4), _mm_alignr_epi8(dchg, feba, 8));
}
inline void four_rounds(State& s, Words x) {
  s.cdgh = _mm_sha256rnds2_epu32(s.cdgh, s.abef, x);
  s.abef = _mm_sha256rnds2_epu32(s.abef, s.cdgh, _mm_shuffle_epi32(x, 0x0e));
}
}  // namespace

#include "instructions.inl"
