// SHA-256 by the processor's own instructions: one primitive, one message or two at a time.
#pragma once
#include <cstdint>
#include <string_view>

namespace ree {

// Absorbs `blocks` consecutive blocks of 64 bytes from p[i] into state[i], i < streams <= 2.
using ShaCompress = void (*)(uint32_t (*state)[8], const uint8_t* const* p, int64_t blocks,
                             int streams);

struct ShaInstructions {
  ShaCompress compress;  // nullptr: this CPU lacks them, or the instruction set does without
  int up_to;             // messages at hand for which they beat that set's vectors
};

ShaInstructions sha_instructions(std::string_view isa);  // dispatch.cpp

}  // namespace ree
