// The compression function for instructions that do several rounds of one message. The including
// file defines Words (four words of the schedule) and State, and for them
//   Words load_block_words(const uint8_t*)    four big-endian words
//   Words load_constants(const uint32_t*)
//   Words plus(Words, Words)
//   Words next(Words, Words, Words, Words)    words 16 .. 19 after words 0 .. 15
//   State enter(const uint32_t[8]), State plus(State, State), void leave(State, uint32_t[8])
//   void four_rounds(State&, Words)           Words: constants plus words
#include "instructions.hpp"
#include "round_constants.hpp"

namespace {

// Rounds depend on each other; a second message fills the time that they wait.
template <int N>
void absorb(uint32_t (*state)[8], const uint8_t* const* p, int64_t blocks) {
  State s[N];
  for (int i = 0; i < N; ++i) s[i] = enter(state[i]);
  for (int64_t b = 0; b < blocks; ++b) {
    State t[N];
    Words w[N][4];
    for (int i = 0; i < N; ++i) {
      t[i] = s[i];
      for (int j = 0; j < 4; ++j) w[i][j] = load_block_words(p[i] + 64 * b + 16 * j);
    }
#pragma GCC unroll 16
    for (int g = 0; g < 16; ++g) {
      const Words k = load_constants(ree::sha::kRound + 4 * g);
#pragma GCC unroll 2
      for (int i = 0; i < N; ++i) {
        Words* v = w[i];
        four_rounds(t[i], plus(v[g % 4], k));
        if (g < 12) v[g % 4] = next(v[g % 4], v[(g + 1) % 4], v[(g + 2) % 4], v[(g + 3) % 4]);
      }
    }
    for (int i = 0; i < N; ++i) s[i] = plus(s[i], t[i]);
  }
  for (int i = 0; i < N; ++i) leave(s[i], state[i]);
}

}  // namespace

namespace ree::REE_SHA {
extern const ShaCompress compress;
const ShaCompress compress = [](uint32_t (*state)[8], const uint8_t* const* p, int64_t blocks,
                                int streams) {
  streams == 2 ? absorb<2>(state, p, blocks) : absorb<1>(state, p, blocks);
};
}  // namespace ree::REE_SHA
